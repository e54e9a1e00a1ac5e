package packaging

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// signatureNamespace keeps a signature of ours from being taken for one of
// something else (ssh-keygen(1), -n).
const signatureNamespace = "sigild-release"

// install tells the one who opens the bundle what to do. It is a file in it.
const install = `sigild %s, for machines without a network

Check it before anything else, with tools every distribution has:

    sha256sum --check SHA256SUMS
    ssh-keygen -Y verify -f ALLOWED_SIGNERS -I sigild -n %s \
        -s SHA256SUMS.sig < SHA256SUMS

ALLOWED_SIGNERS is a line "sigild ssh-ed25519 AAAA..." that reached you by another
way than this file. Without SHA256SUMS.sig the bundle was not signed.

Install it:

    dpkg -i %s      (Debian 12 and newer)
    rpm -i %s       (systemd 252 and newer)

The packages need the C library, systemd and, on Debian, init-system-helpers, which
every installation has. A PKCS#11 module comes from its vendor. What to do then is
in /usr/share/doc/sigild/operating.md. %s lists all parts.
`

// bundle joins the packages and the SBOM with their checksums in one tar.
func (c Config) bundle(ctx context.Context, b Built) (string, error) {
	dir, err := os.MkdirTemp("", "sigild-bundle-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	readme := fmt.Sprintf(install, c.Version, signatureNamespace, filepath.Base(b.Deb), filepath.Base(b.RPM), filepath.Base(b.SBOM))
	files := map[string][]byte{"INSTALL": []byte(readme)}
	names := []string{"INSTALL"}
	for _, path := range []string{b.Deb, b.RPM, b.SBOM} {
		body, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		names = append(names, filepath.Base(path))
		files[filepath.Base(path)] = body
	}
	var sums strings.Builder
	for _, name := range names {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(files[name]), name)
	}
	names = append(names, "SHA256SUMS")
	files["SHA256SUMS"] = []byte(sums.String())
	if c.SigningKey != "" {
		path := filepath.Join(dir, "SHA256SUMS")
		if err := os.WriteFile(path, files["SHA256SUMS"], 0o600); err != nil {
			return "", err
		}
		if _, err := c.run(ctx, dir, "ssh-keygen", "-Y", "sign", "-f", c.SigningKey, "-n", signatureNamespace, path); err != nil {
			return "", fmt.Errorf("signing: %w", err)
		}
		names = append(names, "SHA256SUMS.sig")
		if files["SHA256SUMS.sig"], err = os.ReadFile(path + ".sig"); err != nil {
			return "", fmt.Errorf("signing: %w", err)
		}
	}
	name := fmt.Sprintf("sigild-%s-%s-offline", c.Version, runtime.GOARCH)
	return c.writeTar(filepath.Join(c.Out, name+".tar"), name, names, files)
}

func (c Config) writeTar(path, folder string, names []string, files map[string][]byte) (string, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	w := tar.NewWriter(f)
	for _, name := range names {
		h := &tar.Header{Name: folder + "/" + name, Mode: 0o644, Size: int64(len(files[name])), ModTime: c.Date, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			return "", errors.Join(err, f.Close())
		}
		if _, err := w.Write(files[name]); err != nil {
			return "", errors.Join(err, f.Close())
		}
	}
	return path, errors.Join(w.Close(), f.Close())
}
