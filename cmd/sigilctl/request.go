package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/airgap"
	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/signable"
	"github.com/sigild/sigild/client"
)

// Verbs of the air gap. Create, attach and qr run on a host with a network and
// without keys; show and sign on the signing host without a network.

func requestCommand() *cobra.Command {
	return group("request", "Requests and answers as files or QR codes, for a signing host without a network",
		requestCreateCommand(), requestShowCommand(), requestSignCommand(), requestAttachCommand(), requestQRCommand())
}

// requestFiles is how every verb takes a message.
const requestFiles = `FILE holds the request as it was created, a text with one "ur:..." resource a line, or
one QR code as PNG; repeat it for the parts of one message, in any order.`

func requestCreateCommand() *cobra.Command {
	var r airgap.Request
	var kind, out string
	var valid time.Duration
	c := &cobra.Command{
		Use:   "create --wallet ID --chain CHAIN --address ADDRESS --kind KIND --out FILE <PAYLOAD",
		Short: "Make a request for a signing host without a network; needs no daemon",
		Long: `Reads a payload from stdin and writes a request for one signature, as canonical
CBOR. The payload is decoded first, and what no appliance would sign is refused
here already. Read the ten words to whoever runs the signing host: sigilctl
request show says the same there, or it is another request.

PAYLOAD is 0x and hexadecimal digits for evm.transaction and evm.message, hexadecimal
or base64 for solana.message and solana.offchain_message, and JSON text as the API
takes it for all other kinds.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4*airgap.MaxPayload))
			if err != nil {
				return fmt.Errorf("reading the payload: %w", err)
			}
			r.Kind = chains.Kind(kind)
			if r.Payload, err = payloadFrom(r.Kind, text); err != nil {
				return fmt.Errorf("reading the payload: %w", err)
			}
			if r.ID == "" {
				r.ID = "gap-" + rand.Text()
			}
			if valid < 0 {
				return errors.New("--valid is less than nothing")
			}
			if valid > 0 {
				r.NotAfter = time.Now().Add(valid).UTC().Truncate(time.Second)
			}
			b, err := r.Encode()
			if err != nil {
				return err
			}
			d, err := r.Decode()
			if err != nil {
				return fmt.Errorf("decoding the payload: %w", err)
			}
			if err := writeNew(cmd, out, b); err != nil {
				return err
			}
			tellRequest(cmd.OutOrStdout(), &r, d)
			return nil
		},
	}
	c.Flags().StringVar(&r.Wallet, "wallet", "", "the wallet's `ID` at the appliance")
	c.Flags().StringVar(&r.Signer.Chain, "chain", "", `"eip155", or the CAIP-2 id of a Solana cluster`)
	c.Flags().StringVar(&r.Signer.Address, "address", "", "the wallet's `ADDRESS`")
	c.Flags().StringVar(&kind, "kind", "", "what the payload is, as sigilctl decode lists them")
	c.Flags().StringVar(&r.ID, "id", "", "the request `ID`; without it a random one")
	c.Flags().StringVar(&r.Note, "note", "", "`TEXT` for the person at the signing host; nobody checks it")
	c.Flags().DurationVar(&valid, "valid", 24*time.Hour, "how long sigilctl request sign shall take it; 0: for ever")
	c.Flags().StringVar(&out, "out", "", "write the request to this new `FILE`")
	need(c, "wallet", "chain", "address", "kind", "out")
	return c
}

func requestShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE...",
		Short: "Say in plain words what a request does, and the ten words to compare; needs no daemon",
		Long: `Decodes the request with the decoders of the daemon and prints what it does. An
organization's ABIs, IDLs and pinned tables are not at hand here: the daemon may
understand more of it.

` + requestFiles,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			r, d, err := readRequest(files)
			if err != nil {
				return err
			}
			tellRequest(cmd.OutOrStdout(), r, d)
			return nil
		},
	}
}

func requestSignCommand() *cobra.Command {
	var f signFlags
	var wallet, out string
	var yes bool
	c := &cobra.Command{
		Use:   "sign (--api-key FILE | --organization ID --key FILE) --out ANSWER FILE...",
		Short: "Show a request, ask, and have the daemon of this host sign it",
		Long: `Shows the request as sigilctl request show does, asks whether to go on, and hands it
to the daemon on its application socket: the same ten steps, policy, limits and
journal as for any other request. The answer goes to a new file: to a request of
ours canonical CBOR, to a wallet program's an eth-signature or sol-signature as text.

--api-key is the wallet API key, or the age file in which the appliance handed it
over together with --identity. A user who signs by stamp gives --key, the private
key of its credential, and --organization; several stamp with several. A wallet program's request names an address and no
wallet; --wallet says which it is.

` + requestFiles,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			// Step 1: read, decode, and see that it may be asked for still.
			r, d, err := readRequest(files)
			if err != nil {
				return err
			}
			if wallet != "" && r.Wallet != "" && wallet != r.Wallet {
				return fmt.Errorf("the request is for wallet %s, not for %s", r.Wallet, wallet)
			}
			if r.Wallet == "" {
				r.Wallet = wallet
			}
			if r.Wallet == "" {
				return hinted{errors.New("the request names no wallet"), "say which with --wallet; its address is " + r.Signer.Address}
			}
			if r.Expired(time.Now()) {
				return hinted{fmt.Errorf("the request ended at %s", r.NotAfter.Format(time.RFC3339)), "have it made anew, and look at this host's clock"}
			}
			if _, err := os.Lstat(out); err == nil {
				return fmt.Errorf("writing the answer: %s exists", out)
			}
			// Step 2: show, and ask.
			tellRequest(cmd.OutOrStdout(), r, d)
			if !yes {
				if err := confirm(cmd, r); err != nil {
					return err
				}
			}
			// Step 3: sign.
			reply, err := f.sign(cmd, r)
			if err != nil {
				return err
			}
			// Step 4: look once more, as the other side will, and write.
			a, err := r.ParseReply(reply)
			if err != nil {
				return err
			}
			if _, _, err := airgap.Attach(r, a); err != nil {
				return fmt.Errorf("checking the daemon's answer: %w", err)
			}
			b := reply.CBOR
			if !r.Ours() {
				b = []byte(reply.String() + "\n")
			}
			return writeNew(cmd, out, b)
		},
	}
	f.register(c)
	c.Flags().StringVar(&wallet, "wallet", "", "the wallet's `ID`, where the request names none")
	c.Flags().StringVar(&out, "out", "", "write the answer to this new `FILE`")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	need(c, "out")
	return c
}

func requestAttachCommand() *cobra.Command {
	var requests []string
	var out string
	c := &cobra.Command{
		Use:   "attach --request FILE... ANSWER...",
		Short: "Check an answer against its request and print what goes to the network; needs no daemon",
		Long: `Takes an answer only when its signature is the wallet's over exactly what the
request asks for, puts it in, decodes the result once more, and prints it: the
signed transaction in the chain's usual text (hexadecimal or base64), for other
kinds what goes to the contract or the verifier.

` + requestFiles,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, answers []string) error {
			r, _, err := readRequest(requests)
			if err != nil {
				return err
			}
			u, err := readMessage(answers)
			if err != nil {
				return err
			}
			a, err := r.ParseReply(u)
			if err != nil {
				return err
			}
			signed, d, err := airgap.Attach(r, a)
			if err != nil {
				return err
			}
			b := signed.Signed
			if len(b) == 0 {
				b = a.Signature
			}
			text := "0x" + hex.EncodeToString(b)
			if !r.Signer.OnEVM() {
				text = base64.StdEncoding.EncodeToString(b)
			}
			if out != "" {
				if err := writeNew(cmd, out, []byte(text+"\n")); err != nil {
					return err
				}
			} else {
				fmt.Fprintln(cmd.OutOrStdout(), text)
			}
			w := cmd.ErrOrStderr()
			fmt.Fprintln(w, "does     ", d.Summary)
			if signed.ID != "" {
				fmt.Fprintln(w, "id       ", signed.ID)
			}
			if a.Appliance != "" {
				fmt.Fprintf(w, "approved  entry %d of appliance %s, so it says\n", a.Sequence, a.Appliance)
			}
			return nil
		},
	}
	c.Flags().StringArrayVar(&requests, "request", nil, "request `FILE`; repeat for parts")
	c.Flags().StringVar(&out, "out", "", "write it to this new `FILE` instead of stdout")
	need(c, "request")
	return c
}

// readMessage reads files that make one message.
func readMessage(paths []string) (airgap.UR, error) {
	var files [][]byte
	for _, p := range paths {
		b, err := readLimited(p, 17<<20)
		if err != nil {
			return airgap.UR{}, err
		}
		files = append(files, b)
	}
	return airgap.ReadMessage(files...)
}

func readRequest(paths []string) (*airgap.Request, *chains.Decoded, error) {
	u, err := readMessage(paths)
	if err != nil {
		return nil, nil, err
	}
	r, err := airgap.RequestOf(u)
	if err != nil {
		return nil, nil, err
	}
	d, err := r.Decode()
	if err != nil {
		return nil, nil, fmt.Errorf("decoding the request: %w", err)
	}
	return r, d, nil
}

// payloadFrom reads a payload as a person has it.
func payloadFrom(kind chains.Kind, text []byte) ([]byte, error) {
	text = bytes.TrimSpace(text)
	digits, prefixed := bytes.CutPrefix(text, []byte("0x"))
	b, noHex := hex.DecodeString(string(digits))
	switch kind {
	case chains.KindEVMTransaction, chains.KindEVMMessage:
		if noHex != nil || !prefixed {
			return nil, fmt.Errorf("%s is 0x and hexadecimal digits", kind)
		}
		return b, nil
	case chains.KindSolanaMessage, chains.KindSolanaOffchain:
		if noHex == nil {
			return b, nil
		}
		b, err := base64.StdEncoding.Strict().DecodeString(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s is hexadecimal digits or base64", kind)
		}
		return b, nil
	}
	return text, nil
}

// tellRequest prints a request for the person who decides: what it does first and
// alone, then what to compare, then the rest.
func tellRequest(w io.Writer, r *airgap.Request, d *chains.Decoded) {
	frame := strings.Repeat("=", 72)
	fmt.Fprintf(w, "%s\n\n", frame)
	for part := range strings.SplitSeq(d.Summary, "; ") {
		fmt.Fprintf(w, "    %s\n\n", part)
	}
	if d.Opaque {
		fmt.Fprint(w, "    PARTS OF IT ARE NOT UNDERSTOOD HERE\n\n")
	}
	fmt.Fprintf(w, "%s\n\n    %s\n\n", frame, airgap.Words(r.Digest()))
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%-9s %s\n", name, text)
		}
	}
	row("address", r.Signer.Address)
	row("chain", cmp.Or(d.Chain, r.Signer.Chain))
	row("wallet", r.Wallet)
	row("request", r.ID)
	row("kind", string(r.Kind))
	for _, c := range d.Charges {
		amount := c.Amount.Dec()
		if c.Unbounded {
			amount = "any amount"
		}
		row("spends", strings.TrimSpace(fmt.Sprintf("%s of %s, %s %s", amount, c.Asset, c.What, c.To)))
	}
	for _, g := range d.Guards {
		row("careful", "only a policy that reads "+g+" allows it")
	}
	if r.Kind == chains.KindSolanaMessage && !slices.Contains(d.Guards, "solana.tx.durable_nonce") {
		row("careful", "its blockhash is good for about a minute; across a gap use a durable nonce")
	}
	if !r.NotAfter.IsZero() {
		row("ends", r.NotAfter.Format(time.RFC3339))
	}
	if r.Note != "" {
		row("note", r.Note+"   (the requester's words; nobody checked them)")
	}
}

// confirm takes the first of the ten words for a yes: whoever types it has read them.
func confirm(cmd *cobra.Command, r *airgap.Request) error {
	first, _, _ := strings.Cut(airgap.Words(r.Digest()), " ")
	fmt.Fprint(cmd.ErrOrStderr(), "\nType the first of the ten words to sign: ")
	var said string
	if _, err := fmt.Fscanln(cmd.InOrStdin(), &said); err != nil || !strings.EqualFold(said, first) {
		return hinted{errors.New("not signed: the word was not given"), "without a person use --yes"}
	}
	return nil
}

// readAPIKey reads a wallet API key, out of an age file when there is an identity.
// The caller wipes it.
func readAPIKey(path, identity string, stdin io.Reader) ([]byte, error) {
	var b []byte
	var err error
	if identity == "" {
		b, err = readSecretFile(path, stdin)
	} else {
		b, err = openAge(path, identity, maxWholeKeyFile)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the API key: %w", err)
	}
	return b, nil
}

// signFlags say who asks for a signature: a wallet API key, or users' stamps.
type signFlags struct {
	apiKey, identity, organization, socket string
	keys                                   []string
}

func (f *signFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.apiKey, "api-key", "", "`FILE` with the wallet API key")
	c.Flags().StringVar(&f.identity, "identity", "", "age identity `FILE` that opens the API key's file")
	c.Flags().StringArrayVar(&f.keys, "key", nil, "private key `FILE` that stamps the call, in place of --api-key; repeat for several users")
	c.Flags().StringVar(&f.organization, "organization", "", "`ID` of the organization, with --key")
	c.Flags().StringVar(&f.socket, "socket", "", "call this `socket` instead of the application socket of the configuration")
	c.MarkFlagsRequiredTogether("key", "organization")
	c.MarkFlagsOneRequired("api-key", "key")
	c.MarkFlagsMutuallyExclusive("api-key", "key")
}

// sign is the one call, on the application socket.
func (f *signFlags) sign(cmd *cobra.Command, r *airgap.Request) (reply airgap.UR, err error) {
	in := &sigilv1.SignRequest{RequestId: r.ID, WalletId: r.Wallet, OrganizationId: optional(f.organization)}
	if err := setPayload(in, r.Kind, r.Payload); err != nil {
		return airgap.UR{}, err
	}
	ask := func(c *client.Client, _ string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
		defer cancel()
		status, err := c.Status().GetStatus(ctx, &sigilv1.GetStatusRequest{})
		if err != nil {
			return err
		}
		out, err := c.Signing().Sign(ctx, in)
		if err != nil {
			return err
		}
		reply, err = r.Reply(out.GetSignature(), status.GetApplianceId(), out.GetJournalSequence())
		return err
	}
	if f.apiKey != "" {
		shows := keyFlags{apiKey: f.apiKey, identity: f.identity, socket: f.socket, requestID: r.ID}
		err := shows.call(cmd, ask)
		return reply, err
	}
	if f.socket == "" {
		cfg, err := loadConfig(cmd)
		if err != nil {
			return airgap.UR{}, err
		}
		f.socket = cfg.Sockets.App.Path
	}
	stamps := stampFlags{keys: f.keys, organization: f.organization, socket: f.socket, requestID: r.ID}
	err = stamps.call(cmd, ask)
	return reply, err
}

// setPayload puts a payload where the API has its kind.
func setPayload(r *sigilv1.SignRequest, kind chains.Kind, b []byte) error {
	switch kind {
	case chains.KindEVMTransaction:
		r.Payload = &sigilv1.SignRequest_EvmTransaction{EvmTransaction: b}
	case chains.KindEVMMessage:
		r.Payload = &sigilv1.SignRequest_EvmMessage{EvmMessage: b}
	case chains.KindEVMTypedData:
		r.Payload = &sigilv1.SignRequest_EvmTypedData{EvmTypedData: b}
	case chains.KindEVMAuthorization:
		r.Payload = &sigilv1.SignRequest_EvmAuthorization{EvmAuthorization: b}
	case chains.KindEVMUserOperation:
		r.Payload = &sigilv1.SignRequest_EvmUserOperation{EvmUserOperation: b}
	case chains.KindEVMSafeTransaction:
		r.Payload = &sigilv1.SignRequest_EvmSafeTransaction{EvmSafeTransaction: b}
	case chains.KindSolanaMessage:
		r.Payload = &sigilv1.SignRequest_SolanaMessage{SolanaMessage: b}
	case chains.KindSolanaOffchain:
		r.Payload = &sigilv1.SignRequest_SolanaOffchainMessage{SolanaOffchainMessage: b}
	default:
		return fmt.Errorf("a payload of kind %s: %w", kind, signable.ErrKind)
	}
	return nil
}
