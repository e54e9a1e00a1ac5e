package tpm

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

func TestAnotherOutsideSecretOpensNothing(t *testing.T) {
	r := newRig(t)
	blob := r.sealed(t, "x")
	right := r.cfg.SecretFile
	for name, file := range map[string]string{"another": secretFile(t), "none": ""} {
		r.reopen(t, func(c *Config) { c.SecretFile = file })
		for range 40 { // more than any lockout allows: nothing is counted
			if err := r.refused(t, blob); !errors.Is(err, seal.ErrAuth) || !strings.Contains(err.Error(), "outside secret") {
				t.Fatalf("%s: unsealing: %v, want ErrAuth that says why", name, err)
			}
		}
		if _, err := r.SignP256(t.Context(), r.keys.Checkpoint, [32]byte{1}); !errors.Is(err, seal.ErrAuth) {
			t.Errorf("%s: signing: %v, want ErrAuth", name, err)
		}
	}
	r.reopen(t, func(c *Config) { c.SecretFile = right })
	r.opened(t, blob, "x")
	r.worked(t)
}

func TestObjectsOfATPMWithoutSecretRefuseOne(t *testing.T) {
	r := newRig(t, withoutSecret)
	blob := r.sealed(t, "x")
	r.opened(t, blob, "x")
	r.reopen(t, func(c *Config) { c.SecretFile = secretFile(t) })
	if err := r.refused(t, blob); !errors.Is(err, seal.ErrAuth) {
		t.Errorf("unsealing: %v, want ErrAuth", err)
	}
}

func TestSecretFileIsRefused(t *testing.T) {
	good := make([]byte, secretLen)
	for _, row := range []struct {
		name, path string
		want       error
	}{
		{"missing", filepath.Join(t.TempDir(), "none"), fs.ErrNotExist},
		{"a directory", t.TempDir(), seal.ErrPolicy},
		{"open to others", writeSecret(t, good, 0o404), seal.ErrPolicy},
		{"writable by the group", writeSecret(t, good, 0o420), seal.ErrPolicy},
		{"empty", writeSecret(t, nil, 0o400), seal.ErrPolicy},
		{"short", writeSecret(t, good[1:], 0o400), seal.ErrPolicy},
		{"with a newline", writeSecret(t, append(good, '\n'), 0o400), seal.ErrPolicy},
	} {
		_, err := Open(t.Context(), Config{Path: "/dev/null", SecretFile: row.path})
		if !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
	}
	a, err := readAuths(writeSecret(t, good, 0o440), "") // as systemd shows a credential
	if err != nil {
		t.Fatalf("readable by the group: %v", err)
	}
	a.destroy()
}

// go-tpm cuts an auth value at its first zero byte, so none may have one.
func TestAuthValuesHaveNoZeroByte(t *testing.T) {
	skipped := 0
	var first, out [authLen]byte
	for i := range uint32(500) {
		secret := binary.BigEndian.AppendUint32(make([]byte, secretLen-4), i)
		for _, label := range roleLabels {
			deriveAuth(out[:], secret, label)
			if bytes.Contains(out[:], []byte{0}) {
				t.Fatalf("secret %d: the auth value %x has a zero byte", i, out)
			}
			deriveAuth(first[:], secret, label)
			if first != out {
				t.Fatalf("secret %d: two auth values", i)
			}
			if blockHasZero(secret, label) {
				skipped++
			}
		}
	}
	if skipped == 0 {
		t.Error("no secret of 500 had a block with a zero byte: the test saw nothing")
	}
}

// A secret whose first block has a zero byte works with a real TPM.
func TestSecretWhoseFirstBlockHasAZeroByte(t *testing.T) {
	secret := make([]byte, secretLen)
	for i := uint32(0); !blockHasZero(secret, roleLabels[roleSeal]); i++ {
		binary.BigEndian.PutUint32(secret, i)
	}
	r := newRig(t, func(c *Config) { c.SecretFile = writeSecret(t, secret, 0o400) })
	r.worked(t)
}

// blockHasZero says whether the first block of the derivation is passed over.
func blockHasZero(secret []byte, label string) bool {
	return bytes.Contains(macBlock(secret, label, 0), []byte{0})
}

// What a listener on the bus sees holds neither what is sealed, nor the key it is
// sealed with, nor an auth value.
func TestBusShowsNoSecret(t *testing.T) {
	r, b := busRig(t)
	b.capture()
	plain := make([]byte, 64)
	rand.Read(plain)
	blob := r.sealed(t, string(plain))
	r.opened(t, blob, string(plain))
	if _, err := r.SignP256(t.Context(), r.keys.Checkpoint, [32]byte{7}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Provision(t.Context()); err != nil {
		t.Fatal(err)
	}
	o, _, _, err := decodeBlob(blob)
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{"the plaintext": plain}
	err = r.withKey(t.Context(), o, func(key []byte) error {
		secrets["the key"] = bytes.Clone(key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for role, name := range map[role]string{roleSeal: "the auth value of sealed objects", roleSign: "the auth value of the key"} {
		err := r.auth.lend(role, func(auth []byte) error {
			secrets[name] = bytes.Clone(auth)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	seen := b.capture()
	for name, secret := range secrets {
		for n := 0; n+8 <= len(secret); n += 8 { // any 8 bytes of it
			if bytes.Contains(seen, secret[n:n+8]) {
				t.Errorf("%s crossed the bus in clear", name)
			}
		}
	}
	if len(seen) < 4096 || !bytes.Contains(seen, o.public) {
		t.Fatalf("only %d bytes were captured, or not what passed: the test saw nothing", len(seen))
	}

	// The listener does see what is sent without such a session.
	err = r.do(t.Context(), func(turn *turn) error {
		return r.auth.lend(roleSeal, func(auth []byte) error {
			h, err := turn.load(o)
			if err != nil {
				return err
			}
			_, err = tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: h, Name: o.name(), Auth: tpm2.PasswordAuth(auth)}}.Execute(turn)
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	seen = b.capture()
	for _, name := range []string{"the key", "the auth value of sealed objects"} {
		if !bytes.Contains(seen, secrets[name]) {
			t.Errorf("in a password session %s was not seen: the test saw nothing", name)
		}
	}
}

// Every session is salted to the SRK and has AES-128-CFB, whatever it is for.
func TestEverySessionIsSalted(t *testing.T) {
	r, b := busRig(t)
	sessions := 0
	root := r.root.handle
	b.set(only(tpm2.TPMCCStartAuthSession, func(command []byte) []byte {
		sessions++
		if key := binary.BigEndian.Uint32(command[headerLen:]); key != uint32(root) {
			t.Errorf("a session is salted to %#x, want the SRK %#x", key, uint32(root))
		}
		return nil
	}), nil)
	r.worked(t)
	if sessions == 0 {
		t.Error("no session was seen")
	}
	// And only sessions authorize, none a password, once the SRK is known.
	passwords := 0
	b.set(func(_ tpm2.TPMCC, command []byte) []byte {
		if bytes.Contains(command, []byte{0x40, 0, 0, 9}) { // TPM_RS_PW
			passwords++
		}
		return nil
	}, nil)
	r.worked(t)
	if passwords != 0 {
		t.Errorf("%d commands had a password", passwords)
	}
}

func TestNothingPrintsSecrets(t *testing.T) {
	r := newRig(t)
	blob := r.sealed(t, "x")
	var texts []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		texts = append(texts, fmt.Sprintf(verb, r.Provider), fmt.Sprintf(verb, *r.auth.buf), fmt.Sprintf(verb, r.auth))
	}
	slog.New(slog.NewTextHandler(r.log, nil)).Info("x", "provider", r.Provider)
	if _, err := json.Marshal(r.Provider); err == nil {
		t.Error("a provider was encoded as JSON")
	}
	if err := gob.NewEncoder(&bytes.Buffer{}).Encode(r.auth); err == nil {
		t.Error("auth values were encoded")
	}
	r.Unseal(t.Context(), r.keys.KEK, blob, []byte("other"), func([]byte) error { return nil })
	texts = append(texts, r.log.String(), r.refused(t, blob[:len(blob)-1]).Error())
	if err := r.auth.lend(roleSeal, func(auth []byte) error {
		for _, text := range texts {
			for _, form := range []string{string(auth), hex.EncodeToString(auth), fmt.Sprint(auth)} {
				if strings.Contains(text, form[:16]) {
					t.Error("an auth value was printed")
				}
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprintf("%+v", r.Provider); got != r.ID() {
		t.Errorf("a provider prints as %q, want its id", got)
	}
}

func TestKeyIsLentAndWiped(t *testing.T) {
	r := newRig(t)
	o, _, _, err := decodeBlob(r.sealed(t, "x"))
	if err != nil {
		t.Fatal(err)
	}
	var kept []byte
	mine := errors.New("mine")
	err = r.withKey(t.Context(), o, func(key []byte) error {
		kept = key
		return mine
	})
	if !errors.Is(err, mine) || len(kept) != sealedLen || !bytes.Equal(kept, make([]byte, sealedLen)) {
		t.Errorf("after use the key is %x, err %v, want zeros and the closure's error", kept, err)
	}
}
