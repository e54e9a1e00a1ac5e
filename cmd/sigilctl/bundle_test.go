package main_test

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
)

// scriptBundled makes an organization whose policies come from bundles that two of
// the public files' keys signed, and sets APPLIANCE and ORGANIZATION.
func scriptBundled(ts *testscript.TestScript, files []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.Dial(ts.MkAbs("admin.sock"))
	if err != nil {
		return err
	}
	defer c.Close()
	alice, err := credential.LoadKey(ts.MkAbs("alice.key"))
	if err != nil {
		return err
	}
	_, root, err := newCredential(credential.ForOrganizationRoot, "treasurer")
	if err != nil {
		return err
	}
	authority := &sigilv1.BundleAuthority{Quorum: 2}
	algorithms := map[credential.Algorithm]sigilv1.CredentialAlgorithm{
		credential.P256: sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_P256, credential.Ed25519: sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_ED25519,
	}
	for _, f := range files {
		text, err := os.ReadFile(ts.MkAbs(f))
		if err != nil {
			return err
		}
		p, err := credential.ParsePublicFile(text)
		if err != nil {
			return err
		}
		authority.Credentials = append(authority.Credentials, &sigilv1.NewCredential{Name: p.Name, Algorithm: algorithms[p.Key.Algorithm], PublicKey: p.Key.Bytes, Proof: p.Proof})
	}
	made, err := c.WithStamps("", alice).Organizations().CreateOrganization(ctx, &sigilv1.CreateOrganizationRequest{
		RequestId: "bundled", Name: "bundled " + strings.Join(files, " "), RootCredentials: []*sigilv1.NewCredential{root}, RootQuorum: 1, BundleAuthority: authority,
	})
	if err != nil {
		return err
	}
	st, err := c.Status().GetStatus(ctx, &sigilv1.GetStatusRequest{})
	if err != nil {
		return err
	}
	ts.Setenv("ORGANIZATION", made.GetOrganizationId())
	ts.Setenv("APPLIANCE", st.GetApplianceId())
	return nil
}
