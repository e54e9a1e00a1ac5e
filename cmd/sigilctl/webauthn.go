package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/credential"
)

// Verbs that make a credential of a passkey or a security key, out of the two answers that
// a page got of its browser. Both need no daemon.

// passkeyFlags are what both verbs take.
type passkeyFlags struct {
	registration, rp, purpose, name, challenge string
	origins                                    []string
}

func (f *passkeyFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.registration, "registration", "", "`FILE` with the answer to navigator.credentials.create, as toJSON() gives it")
	c.Flags().StringVar(&f.rp, "rp-id", "", "the relying party's id, a domain: wallet.example")
	c.Flags().StringArrayVar(&f.origins, "origin", nil, "an `ORIGIN` of pages that may ask for stamps, https://wallet.example; repeat for each")
	c.Flags().StringVar(&f.purpose, "purpose", string(credential.ForUser), "user or delegated-user")
	c.Flags().StringVar(&f.name, "name", "", "a label for people")
	c.Flags().StringVar(&f.challenge, "registration-challenge", "", "what the page asked for the key with, base64url; checked when it is given")
	need(c, "registration", "rp-id", "origin", "name")
}

// read verifies the registration.
func (f *passkeyFlags) read() (credential.PublicKey, credential.RelyingParty, error) {
	var challenge []byte
	if p := credential.Purpose(f.purpose); p != credential.ForUser && p != credential.ForDelegatedUser {
		return credential.PublicKey{}, credential.RelyingParty{}, fmt.Errorf("--purpose %q: only users have WebAuthn credentials", f.purpose)
	}
	if f.challenge != "" {
		var err error
		if challenge, err = base64.RawURLEncoding.Strict().DecodeString(f.challenge); err != nil {
			return credential.PublicKey{}, credential.RelyingParty{}, errors.New("--registration-challenge is not in base64url without padding")
		}
	}
	text, err := readLimited(f.registration, maxSmall)
	if err != nil {
		return credential.PublicKey{}, credential.RelyingParty{}, err
	}
	r, err := credential.ParseRegistration(text)
	if err != nil {
		return credential.PublicKey{}, credential.RelyingParty{}, err
	}
	return credential.RelyingParty{ID: f.rp, Origins: f.origins}.Register(r, challenge)
}

func webauthnCommand() *cobra.Command {
	return group("webauthn", "Make a credential of a passkey or a security key", webauthnChallengeCommand(), webauthnAcceptCommand())
}

func webauthnChallengeCommand() *cobra.Command {
	var f passkeyFlags
	c := &cobra.Command{
		Use:   "challenge --registration FILE --rp-id DOMAIN --origin ORIGIN --name NAME",
		Short: "Verify a registration, and say which challenge proves possession of its key; needs no daemon",
		Long: `Verifies what a browser said when it had a key made (ES256, user verified, no extensions;
attestation is not looked at), and prints the challenge that the page asks the same key
with next: navigator.credentials.get with userVerification "required". Its answer goes to
sigilctl credential webauthn accept, with the same purpose and name.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, party, err := f.read()
			if err != nil {
				return err
			}
			challenge, err := credential.ProofChallenge(key, credential.Purpose(f.purpose), f.name)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "credential  %s\nkey         %s\nchallenge   %s\n", key.ID(), base64.RawURLEncoding.EncodeToString(party.CredentialID), base64.RawURLEncoding.EncodeToString(challenge))
			return nil
		},
	}
	f.register(c)
	return c
}

func webauthnAcceptCommand() *cobra.Command {
	var f passkeyFlags
	var answer, out string
	c := &cobra.Command{
		Use:   "accept --registration FILE --assertion FILE --rp-id DOMAIN --origin ORIGIN --name NAME --out FILE.json",
		Short: "Verify the proof of possession too, and write the public file that registers the credential; needs no daemon",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, party, err := f.read()
			if err != nil {
				return err
			}
			text, err := readLimited(answer, maxSmall)
			if err != nil {
				return err
			}
			id, assertion, err := credential.ParseAssertionResponse(text)
			if err != nil {
				return err
			}
			if !bytes.Equal(id, party.CredentialID) {
				return errors.New("the assertion is of another key than the registration")
			}
			public := credential.PublicFile{Purpose: credential.Purpose(f.purpose), Name: f.name, Key: key, Party: &party}
			if public.Proof, err = assertion.Encode(); err != nil {
				return err
			}
			if err := credential.VerifyProofAs(key, &party, public.Purpose, public.Name, public.Proof); err != nil {
				return hinted{err, "the page asks with the challenge that sigilctl credential webauthn challenge printed, for the same --purpose and --name"}
			}
			file, err := public.Encode()
			if err != nil {
				return err
			}
			if err := writeDurably(out, file); err != nil {
				return fmt.Errorf("writing the public file: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", key.ID(), out)
			return nil
		},
	}
	f.register(c)
	c.Flags().StringVar(&answer, "assertion", "", "`FILE` with the answer to navigator.credentials.get, as toJSON() gives it")
	c.Flags().StringVar(&out, "out", "", "the new public `FILE`")
	need(c, "assertion", "out")
	return c
}
