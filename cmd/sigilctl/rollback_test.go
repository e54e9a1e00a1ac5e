package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/internal/testtpm"
	"github.com/sigild/sigild/vault"
)

// The state folder is copied while sigild runs, sigild signs on and is killed with
// kill -9, and the copy is put back: its limit of a sol a day holds over both lives
// where the store has an anchor. Without one it doesn't, and status says so.
func TestACopyOfTheStateSpendsNoLimitTwice(t *testing.T) {
	becomeScratch(t)
	for _, anchor := range []string{"nv", "kek-roll", "none"} {
		t.Run(anchor, func(t *testing.T) {
			p, b := anchoredPlace(t, anchor)
			d := startFor(t, p)
			if said, err := p.sigilctl("status"); err != nil || !strings.Contains(said, "rollback anchor") || !strings.Contains(said, anchor) {
				t.Errorf("status: %v\n%s", err, said)
			}
			const each, limit = 25_000_000, 1_000_000_000
			spent := uint64(0)
			spend := func(life string, most int) (refused string) {
				c, err := client.Dial(p.path("app.sock"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c = c.WithAPIKey(b.APIKey)
				for i := range most {
					if _, err := b.ask(c, acknowledged{ID: fmt.Sprint(life, i), Lamports: each + uint64(i)}); err != nil {
						return client.Reason(err)
					}
					spent += each + uint64(i)
				}
				return ""
			}
			if why := spend("before", 1); why != "" {
				t.Fatal(why)
			}
			copyState(t, p.path("state"), p.path("copy"))
			if why := spend("forgotten", 3); why != "" { // a lease is 125,000,000
				t.Fatal(why)
			}
			if err := d.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = d.cmd.Wait()
			if err := os.Rename(p.path("state"), p.path("killed")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(p.path("copy"), p.path("state")); err != nil {
				t.Fatal(err)
			}
			d = startFor(t, p)
			if why := spend("after", 100); why != "LIMIT_EXCEEDED" {
				t.Errorf("it ended with %q", why)
			}
			if held := spent <= limit; held != (anchor != "none") {
				t.Errorf("%d of %d lamports were signed for under anchor %s", spent, limit, anchor)
			}
			if err := d.stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// anchoredPlace is an appliance whose store has an anchor, with an organization and a bot.
func anchoredPlace(t *testing.T, anchor string) (place, bot) {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Join(base, "work"), "")
	if err != nil {
		t.Fatal(err)
	}
	p := place{dir}
	if err := p.addToken(); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(p.path("sigild.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if anchor == "nv" {
		head, rest, _ := strings.Cut(string(config), "  pkcs11:\n")
		_, rest, _ = strings.Cut(rest, "pre_parameters:")
		config = []byte(head + "  tpm:\n    path: " + testtpm.New(t).Path + "\n    trust_bus: true\npre_parameters:" + rest)
	}
	write := func() {
		if err := os.WriteFile(p.path("sigild.yaml"), config, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write()
	if _, err := p.sigilctl("credential", "create", "--purpose", "operator", "--name", "alice", "--out", "alice"); err != nil {
		t.Fatal(err)
	}
	said, err := p.sigilctl("init", "--operator", "alice.json", "--quorum", "1", "--anchor", anchor)
	if err != nil {
		t.Fatal(err)
	}
	if _, name, ok := strings.Cut(said, "srk_name: "); ok {
		name, _, _ = strings.Cut(name, "\n")
		config = []byte(strings.Replace(string(config), "    trust_bus: true\n", "    trust_bus: true\n    srk_name: "+name+"\n", 1))
		write()
	}
	d := startFor(t, p)
	b, err := p.enroll()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	return p, b
}

// copyState copies a store as it lies there, its log included.
func copyState(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{vault.FileName, vault.FileName + "-wal"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
