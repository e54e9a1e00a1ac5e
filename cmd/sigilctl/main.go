// Command sigilctl is the operator's and the user's tool. Off-line verbs (init,
// credential, audit, decode, policy, bundle, pin, hsm-worker) work on files and the token; status asks the
// daemon over its socket.
//
// Exit codes: 0 done, 1 refused or failed, 2 the daemon is sealed.
package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/hsm"
)

// version is set by the build.
var version = "0.1.0-dev"

func main() {
	if len(os.Args) > 1 && os.Args[1] == "hsm-worker" {
		os.Exit(hsm.WorkerMain())
	}
	if err := root().Execute(); err != nil {
		complain(os.Stderr, err)
		var code exitError
		if errors.As(err, &code) {
			os.Exit(code.code)
		}
		os.Exit(1)
	}
}

// exitError carries an exit code other than 1.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

// hinted carries what to do next.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "sigilctl",
		Short:         "Set up, watch and check a sigild appliance",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	c.PersistentFlags().String("config", config.DefaultPath, "the daemon's configuration `FILE`")
	c.AddCommand(initCommand(), credentialCommand(), statusCommand(), doctorCommand(), auditCommand(), decodeCommand(), policyCommand(), bundleCommand(), webhookKeyCommand(), pinCommand(), pcrCommand(), attestCommand(),
		pauseCommand(), resumeCommand(), sealCommand(), unsealCommand())
	c.AddCommand(keyCommand(), recoverCommand())
	c.AddCommand(providerCommand(), keyslotCommand(), limitCommand(), clockCommand(), rotateCommand(), backupCommand(), restoreCommand(), receiptCommand(), walletCommand(), delegationCommand(), requestCommand(), activityCommand())
	c.AddCommand(organizationCommand(), userCommand(), memberCommand(), accessCommand(), orderCommand())
	c.AddCommand(webhookCommand(), deliveryCommand(), endpointCommand())
	c.AddCommand(deviceCommand(), cosignCommand(), ceremonyCommand())
	c.AddCommand(vendorCredentialCommand(), stampCommand())
	return c
}

// group makes a command that only holds others; a name it doesn't know is an error.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(commands...)
	return c
}

// loadConfig reads the file that --config names.
func loadConfig(c *cobra.Command) (config.Config, error) {
	path, err := c.Flags().GetString("config")
	if err != nil {
		return config.Config{}, err
	}
	return config.Load(path)
}
