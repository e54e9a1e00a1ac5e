package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/cmd/sigilctl/judge"
	"github.com/sigild/sigild/policy"
)

// policyCommand holds the verbs about policies. All but set and show need no daemon.
func policyCommand() *cobra.Command {
	return group("policy", "Check policies, decide requests by them, bring them over; set an organization's",
		policyCheckCommand(), policyEvaluateCommand(), policyReplayCommand(), group("import", "Make policies of another product's", policyImportCommand()),
		policySetCommand(), policyShowCommand())
}

func policyCheckCommand() *cobra.Command {
	var lines bool
	c := &cobra.Command{
		Use:   "check FILE | --jsonl <ROWS",
		Short: "Say what is wrong with policies, and which holes they leave",
		Long: `Compiles the policies and limits of FILE, {"policies":[...],"limits":[...]}, as the
daemon would. Errors refuse the whole file and make the exit code 1; lints, which
are about holes a correct text can leave, don't.

With --jsonl every line of stdin is a JSON object {"id","condition","consensus",
"time"}, and if it matters "effect" and "lang", and is answered by a line of
stdout: {"id","ok","error":{"code","message","offset"},"lints":[...]}. The exit
code is 0 then. docs/policy.md has the codes.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if lines != (len(args) == 0) {
				return errors.New("checking policies: name a FILE, or give --jsonl and rows on stdin")
			}
			if lines {
				return judge.Check(cmd.InOrStdin(), cmd.OutOrStdout())
			}
			f, err := readPolicies(args[0])
			if err != nil {
				return err
			}
			_, err = f.Report(cmd.OutOrStdout())
			return err
		},
	}
	c.Flags().BoolVar(&lines, "jsonl", false, "one JSON object a line in, one a line out")
	return c
}

func policyEvaluateCommand() *cobra.Command {
	var lines bool
	var requestPath string
	c := &cobra.Command{
		Use:   "evaluate FILE --request REQUEST | --jsonl <ROWS",
		Short: "Decide a request by policies, and say which part of which policy decided",
		Long: `Decides the request in the file REQUEST by the policies in FILE. The request is a
JSON object {"raw":{...},"activity":{...},"approvers":[...],"credentials":[...],
"wallet":{...},"private_key":{...},"wallet_account":{...},"time":"..."}; raw has
"chain" (evm or solana), one of "unsigned", "typedData", "authorization",
"message" and "hash", and "signer". The payload is decoded by the daemon's
decoders. Limits, approvals and the state of the store take no part.

With --jsonl every line of stdin is {"id","policies":[{"effect","condition",
"consensus","time"}],"request":{...}}, and is answered by a line of stdout:
{"id","outcome","policies":[...]}. The outcome is ALLOW, DENY_IMPLICIT,
DENY_EXPLICIT, DENY_ERROR or REQUIRES_CONSENSUS. The exit code is 0 then; without
--jsonl it is 1 unless the outcome is ALLOW.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if lines {
				if len(args) > 0 || requestPath != "" {
					return errors.New("evaluating policies: with --jsonl everything is in the rows")
				}
				return judge.Evaluate(cmd.InOrStdin(), cmd.OutOrStdout())
			}
			if len(args) == 0 || requestPath == "" {
				return errors.New("evaluating policies: name a FILE and a --request, or give --jsonl and rows on stdin")
			}
			return evaluateFile(args[0], requestPath, cmd.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&lines, "jsonl", false, "one JSON object a line in, one a line out")
	c.Flags().StringVar(&requestPath, "request", "", "the request, a `FILE` with one JSON object")
	return c
}

func evaluateFile(policies, request string, out io.Writer) error {
	f, err := readPolicies(policies)
	if err != nil {
		return err
	}
	set, err := compileFile(f)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(request)
	if err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	outcome, err := judge.Explain(set, text, out)
	if err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	if outcome != policy.Allowed {
		return fmt.Errorf("the request would be refused: %v", outcome)
	}
	return nil
}

func policyReplayCommand() *cobra.Command {
	var db, organization string
	var lines bool
	c := &cobra.Command{
		Use:   "replay FILE",
		Short: "Say which of the journal's decisions other policies would change",
		Long: `Verifies the journal and judges what it approved, and what it refused by policy or
limit, again by the policies in FILE: without daemon, token or secret. It prints
each decision that would change and why, then how many there are. Limits, ABIs,
IDLs, pinned tables and labels of wallets take no part, and payloads of more than
4096 bytes are not in the journal; those are counted.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := readPolicies(args[0])
			if err != nil {
				return err
			}
			set, err := compileFile(f)
			if err != nil {
				return err
			}
			path, err := database(cmd, db)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			enc := json.NewEncoder(out)
			enc.SetEscapeHTML(false)
			r := judge.Replay{Set: set, Organization: organization, Changed: func(c judge.Change) error {
				if lines {
					return enc.Encode(c)
				}
				return c.Tell(out)
			}}
			if err := listEntries(cmd.Context(), path, r.Entry); err != nil {
				return err
			}
			summary := out
			if lines {
				summary = cmd.ErrOrStderr()
			}
			_, err = fmt.Fprintf(summary, "decisions that would change: %d, the same: %d, not recorded: %d\n", r.Differ, r.Same, r.Unrecorded)
			return err
		},
	}
	c.Flags().StringVar(&db, "db", "", "the database `file`, or a copy of it; default: the configuration's")
	c.Flags().StringVar(&organization, "organization", "", "judge the requests of one organization only, by its `id`")
	c.Flags().BoolVar(&lines, "jsonl", false, "one JSON object a change")
	return c
}

// compileFile compiles policies that must have no errors.
func compileFile(f judge.File) (*policy.Set, error) {
	set, ds := policy.Compile(f.Policies, f.Limits, nil)
	for _, d := range ds {
		if d.Severity == policy.SeverityError {
			return nil, hinted{fmt.Errorf("evaluating policies: %w: %v", judge.ErrRefused, d), "sigilctl policy check says all of them"}
		}
	}
	return set, nil
}

func policyImportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "turnkey FILE",
		Short: "Make policies of those that Turnkey lists",
		Long: `Reads {"policies":[...]} as Turnkey's list_policies answers it and writes the same
policies to stdout, as sigilctl policy check reads them; no text is changed. What
would be refused here, and what leaves holes, is told on stderr; nothing is
written when something is refused. docs/policy.md lists where a text means
something else here than Turnkey documents.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("reading Turnkey's policies: %w", err)
			}
			defer in.Close()
			f, err := judge.ImportTurnkey(in)
			if err != nil {
				return err
			}
			if _, err := f.Report(cmd.ErrOrStderr()); err != nil {
				return err
			}
			return f.Write(cmd.OutOrStdout())
		},
	}
}

func readPolicies(path string) (judge.File, error) {
	in, err := os.Open(path)
	if err != nil {
		return judge.File{}, fmt.Errorf("reading policies: %w", err)
	}
	defer in.Close()
	return judge.ReadFile(in)
}
