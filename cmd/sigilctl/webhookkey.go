package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/seal"
)

// webhookKeyCommand puts decryption keys for deliveries into the token: for those
// who already gave a vendor the public half of a key, and for keys that take
// longer to make than a call of the API may last. Private keys never travel over
// the API. It speaks to the token itself; the daemon may run or not.
func webhookKeyCommand() *cobra.Command {
	var bits int
	create := &cobra.Command{
		Use:   "create",
		Short: "Make an RSA key in the token and print its reference and public key",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withToken(cmd, func(ctx context.Context, p *hsm.Provider) error {
				ref, err := p.GenerateRSA(ctx, bits)
				if err != nil {
					return err
				}
				return printRSAKey(ctx, cmd.OutOrStdout(), p, ref)
			})
		},
	}
	create.Flags().IntVar(&bits, "bits", 3072, "2048, 3072 or 4096")
	return group("webhook-key", "Make or import the keys that deliveries are encrypted to", create, &cobra.Command{
		Use:   "import FILE",
		Short: "Put an RSA private key (PEM, PKCS #8, not encrypted) into the token and print its reference",
		Long: `Puts an RSA private key of 2048 to 4096 bits into the token and prints its
reference, for key_ref of RegisterWebhook. FILE is PEM of type PRIVATE KEY. The key
says "imported" for ever: there may be copies. FILE stays as it is; destroy it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			der, err := readPrivateKey(args[0])
			if err != nil {
				return err
			}
			defer clear(der)
			return withToken(cmd, func(ctx context.Context, p *hsm.Provider) error {
				ref, err := p.ImportRSA(ctx, der)
				if err != nil {
					return err
				}
				return printRSAKey(ctx, cmd.OutOrStdout(), p, ref)
			})
		},
	})
}

// withToken lends the open token of the configuration.
func withToken(cmd *cobra.Command, use func(context.Context, *hsm.Provider) error) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	if cfg.Provider.PKCS11 == nil {
		return fmt.Errorf("opening the sealing device: %w: decryption keys need provider.pkcs11", seal.ErrUnsupported)
	}
	p, err := hsm.Open(cmd.Context(), cfg.HSM(nil))
	if err != nil {
		return err
	}
	defer p.Close()
	return use(cmd.Context(), p)
}

func printRSAKey(ctx context.Context, w io.Writer, p *hsm.Provider, ref seal.KeyRef) error {
	key, err := p.RSAKey(ctx, ref)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public)
	if err != nil {
		return fmt.Errorf("encoding the public key: %w", err)
	}
	origin := "made in the token"
	if key.Imported {
		origin = "imported"
	}
	fmt.Fprintf(w, "key_ref  %s\nbits     %d\norigin   %s\n", key.Ref, key.Public.N.BitLen(), origin)
	return pem.Encode(w, &pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// maxKeyFile is far above the 3 KiB of a 4096-bit key.
const maxKeyFile = 64 << 10

// readPrivateKey reads the one PEM block of a file. The caller wipes the result.
func readPrivateKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the private key: %w", err)
	}
	defer f.Close()
	text := make([]byte, maxKeyFile)
	defer clear(text)
	n, err := io.ReadFull(f, text)
	if err == nil {
		return nil, fmt.Errorf("reading the private key: %s has more than %d bytes", path, maxKeyFile-1)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("reading the private key: %w", err)
	}
	block, rest := pem.Decode(text[:n])
	if block == nil || len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("reading the private key: %s does not hold one PEM block and nothing else", path)
	}
	if block.Type != "PRIVATE KEY" {
		clear(block.Bytes)
		return nil, hinted{fmt.Errorf("reading the private key: %s is PEM of type %q, not PRIVATE KEY", path, block.Type),
			"openssl pkcs8 -topk8 -nocrypt -in " + path + " -out NEW, where nobody else can read"}
	}
	return block.Bytes, nil
}
