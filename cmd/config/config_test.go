package config

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const manual = "../../packaging/sigild.yaml"

// small is the least that is a configuration.
const small = `provider:
  pkcs11:
    module: /usr/lib/softhsm/libsofthsm2.so
    token_label: sigild
    pin_file: /etc/sigild/hsm-pin
`

func readManual(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// text makes configurations comparable; an empty list and none are the same.
func text(t testing.TB, c Config) string {
	t.Helper()
	b, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTheManualShowsTheDefaults(t *testing.T) {
	got, err := Load(manual)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Provider = got.Provider // the one section without a default
	if text(t, got) != text(t, want) {
		t.Errorf("%s says\n%s\nwant the defaults\n%s", manual, text(t, got), text(t, want))
	}
}

// tpmName has the form of a TPM Name.
var tpmName = "000b" + strings.Repeat("a1", 32)

// Every key is in the manual, under a comment of its own or of its section.
func TestTheManualDocumentsEveryKey(t *testing.T) {
	var doc yaml.Node
	// The TPM's section stands there as the other choice, commented out.
	whole := regexp.MustCompile(`(?m)^  #(tpm:|  .*|)$`).ReplaceAll(readManual(t), []byte("  $1"))
	if err := yaml.Unmarshal(whole, &doc); err != nil {
		t.Fatal(err)
	}
	undocumented := explain(doc.Content[0], reflect.TypeFor[Config](), "", false)
	for _, key := range undocumented {
		t.Errorf("%s: %s is missing, or has no comment", manual, key)
	}
	// The check can fail.
	if err := yaml.Unmarshal([]byte("state_dir: /x\n# sealing\nprovider: {pkcs11: {module: /m}}\n"), &doc); err != nil {
		t.Fatal(err)
	}
	bad := explain(doc.Content[0], reflect.TypeFor[Config](), "", false)
	if all := strings.Join(bad, " "); !strings.Contains(all, "state_dir") || !strings.Contains(all, "provider.pkcs11.pin_file") || strings.Contains(all, "module") {
		t.Errorf("a bare file lacks %q", bad)
	}
}

// explain lists the keys of typ that the mapping lacks or leaves without a comment.
func explain(mapping *yaml.Node, typ reflect.Type, prefix string, above bool) (bad []string) {
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		key := f.Tag.Get("yaml")
		if key == "" {
			return append(bad, prefix+f.Name+" (no yaml tag)")
		}
		at, value := find(mapping, key)
		section := f.Type.Kind() == reflect.Struct || f.Type.Kind() == reflect.Pointer
		switch {
		case at == nil || !section && !above && at.HeadComment == "":
			bad = append(bad, prefix+key)
		case section:
			bad = append(bad, explain(value, f.Type, prefix+key+".", above || at.HeadComment != "")...)
		}
	}
	return bad
}

func find(mapping *yaml.Node, key string) (name, value *yaml.Node) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i], mapping.Content[i+1]
		}
	}
	return nil, nil
}

func TestAbsentKeysHaveDefaults(t *testing.T) {
	got, err := Parse([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Provider.PKCS11 = &PKCS11{Module: "/usr/lib/softhsm/libsofthsm2.so", TokenLabel: "sigild", PINFile: "/etc/sigild/hsm-pin"}
	if text(t, got) != text(t, want) {
		t.Errorf("got\n%s\nwant\n%s", text(t, got), text(t, want))
	}
}

func TestWhatIsRefused(t *testing.T) {
	pkcs11 := func(more string) string { return small + "    " + more + "\n" }
	without := func(line string) string { return strings.Replace(small, line, "", 1) }
	tests := []struct{ name, file, want string }{
		{"nothing", "", "the file is empty; provider.pkcs11 is needed"},
		{"only comments", "# later\n", "the file is empty"},
		{"only a null", "~\n", "provider must name one sealing device"},
		{"no provider", "state_dir: /x\n", "provider must name one sealing device"},
		{"an empty provider", "provider: {}\n", "provider must name one sealing device"},
		{"two devices", small + "  tpm: {path: /dev/tpmrm0}\n", "provider must name one sealing device"},
		{"relative policies", small + "policy_dir: policies\n", "policy_dir must be an absolute path"},
		{"a relative tpm", "provider: {tpm: {path: tpmrm0}}\n", "provider.tpm.path must be an absolute path"},
		{"half an srk name", "provider: {tpm: {srk_name: 000b}}\n", "provider.tpm.srk_name must have 68 hex digits"},
		{"a relative secret", "provider: {tpm: {secret_file: s}}\n", "provider.tpm.secret_file must be an absolute path"},
		{"an approver by name", "provider: {tpm: {pcr_policy: {approver: bob.json, approvals: /a, counter: " + tpmName + "}}}\n", "pcr_policy.approver must be an absolute path"},
		{"approvals nowhere", "provider: {tpm: {pcr_policy: {approver: /bob.json, counter: " + tpmName + "}}}\n", "pcr_policy.approvals must be an absolute path"},
		{"no counter", "provider: {tpm: {pcr_policy: {approver: /bob.json, approvals: /a}}}\n", "pcr_policy.counter must have 68 hex digits"},
		{"a slow tpm", "provider: {tpm: {command_timeout: 2m}}\n", "provider.tpm.command_timeout must be at most 1m"},
		{"a typo", small + "socket:\n  app: {path: /x}\n", "line 6: field socket not found"},
		{"a typo below", small + "sockets:\n  app: {paht: /x}\n", "line 7: field paht not found"},
		{"two typos", "stat_dir: /x\n" + small + "pinfile: /x\n", "line 1: field stat_dir not found; line 7: field pinfile not found"},
		{"a key of another section", pkcs11("timeout: 5s"), "line 6: field timeout not found"},
		{"a key in capitals", small + "State_dir: /x\n", "line 6: field State_dir not found"},
		{"a key twice", small + "state_dir: /x\nstate_dir: /y\n", `line 7: mapping key "state_dir" already defined at line 6`},
		{"a variable twice", pkcs11("env: {A: x, A: y}"), `mapping key "A" already defined`},
		{"two documents", small + "---\n" + small, "more than one YAML document"},
		{"an end of document and more", small + "...\nlog: {level: debug}\n", "more than one YAML document"},
		{"not YAML", "state_dir: [\n", "line 1"},
		{"a list", "- a\n", "line 1: cannot unmarshal !!seq"},
		{"text for a section", small + "sockets: /run/x\n", "line 6: cannot unmarshal !!str `/run/x`"},
		{"text for a number", small + "signing: {max_concurrent: many}\n", "line 6: cannot unmarshal !!str `many`"},
		{"a bare number for a time", small + "signing: {timeout: 20}\n", "line 6: cannot unmarshal !!int `20`"},
		{"a name for a uid", small + "roles: {app: {uids: [www-data]}}\n", "line 6: cannot unmarshal !!str `www-data`"},
		{"a negative uid", small + "roles: {app: {uids: [-1]}}\n", "line 6: cannot unmarshal !!int `-1`"},
		{"a uid above 32 bits", small + "roles: {app: {gids: [4294967296]}}\n", "line 6: cannot unmarshal !!int"},
		{"an unknown role", small + "roles: {admin: {uids: [0]}}\n", "line 6: field admin not found"},
		{"an alias to nothing", "state_dir: *x\n" + small, "unknown anchor"},

		{"a relative state", small + "state_dir: var/lib/sigild\n", `state_dir must be an absolute path, not "var/lib/sigild"`},
		{"an empty pin file", small + "pin_file: \"\"\n", "pin_file must be an absolute path"},
		{"a relative app socket", small + "sockets: {app: {path: ./s}}\n", "sockets.app.path must be an absolute path"},
		{"an abstract socket", small + "sockets: {admin: {path: \"@sigild\"}}\n", "sockets.admin.path must be an absolute path"},
		{"a NUL in a path", small + "sockets: {admin: {path: \"/a\\0b\"}}\n", "sockets.admin.path must be an absolute path"},
		{"a module by name", strings.Replace(small, "/usr/lib/softhsm/", "", 1), "provider.pkcs11.module must be an absolute path"},
		{"no PIN file", without("    pin_file: /etc/sigild/hsm-pin\n"), "provider.pkcs11.pin_file must be an absolute path"},
		{"one socket for both", small + "sockets: {app: {path: /run/a}, admin: {path: /run/./a}}\n", "sockets.app.path and sockets.admin.path are the same"},

		{"a mode of three digits", small + "sockets: {app: {mode: \"660\"}}\n", `sockets.app.mode: "660" is not a mode`},
		{"a mode with a tail", small + "sockets: {app: {mode: \"066x\"}}\n", `sockets.app.mode: "066x" is not a mode`},
		{"a mode that isn't octal", small + "sockets: {app: {mode: \"0668\"}}\n", `sockets.app.mode: "0668" is not a mode`},
		{"a mode with a sign", small + "sockets: {admin: {mode: \"+660\"}}\n", `sockets.admin.mode: "+660" is not a mode`},
		{"a mode that executes", small + "sockets: {admin: {mode: \"0770\"}}\n", `sockets.admin.mode: "0770" is not a mode`},
		{"a mode with setuid", small + "sockets: {admin: {mode: \"4660\"}}\n", `sockets.admin.mode: "4660" is not a mode`},
		{"a mode that lets nobody in", small + "sockets: {admin: {mode: \"0000\"}}\n", `sockets.admin.mode: "0000" is not a mode`},
		{"an empty mode", small + "sockets: {admin: {mode: \"\"}}\n", `sockets.admin.mode: "" is not a mode`},

		{"no token", without("    token_label: sigild\n"), "provider.pkcs11 needs token_label, token_serial or uri"},
		{"a URI and a label", pkcs11("uri: pkcs11:token=sigild"), "uri and token_label or token_serial exclude each other"},
		{"a URI with a slot", strings.Replace(small, "token_label: sigild", "uri: \"pkcs11:slot-id=1\"", 1), "provider.pkcs11.uri: reading the PKCS#11 URI: \"slot-id\" is not taken"},
		{"a URI with a PIN", strings.Replace(small, "token_label: sigild", "uri: \"pkcs11:token=a?pin-value=4711\"", 1), "a PIN does not belong in a configuration"},
		{"a long label", strings.Replace(small, "label: sigild", "label: "+strings.Repeat("x", 33), 1), "provider.pkcs11.token_label must have at most 32 bytes"},
		{"a long serial", pkcs11("token_serial: \"12345678901234567\""), "provider.pkcs11.token_serial must have at most 16 bytes"},
		{"a long call", pkcs11("call_timeout: 61s"), "provider.pkcs11.call_timeout must be at most 1m"},
		{"a negative call", pkcs11("call_timeout: -1s"), "provider.pkcs11.call_timeout must be at most 1m"},
		{"a variable without a name", pkcs11("env: {\"\": x}"), `provider.pkcs11.env: ""`},
		{"a variable with an equals sign", pkcs11("env: {A=B: x}"), `provider.pkcs11.env: "A=B"`},
		{"a variable with a NUL", pkcs11("env: {A: \"x\\0y\"}"), `provider.pkcs11.env: "A"`},

		{"too many pre-parameters", small + "pre_parameters: {target: 65}\n", "pre_parameters.target must be 0 to 64"},
		{"too many presignatures", small + "presignatures: {max: 65}\n", "presignatures.max must be 0 to 64"},
		{"no time for presignatures", small + "presignatures: {cpu: 0}\n", "presignatures.cpu must be 0.01 to 1"},
		{"more than a core for presignatures", small + "presignatures: {cpu: .nan}\n", "presignatures.cpu must be 0.01 to 1"},
		{"fewer than none", small + "pre_parameters: {target: -1}\n", "pre_parameters.target must be 0 to 64"},
		{"no time for ceremonies", small + "ceremonies: {timeout: 9s}\n", "ceremonies.timeout must be 10s to 1h"},
		{"all day for ceremonies", small + "ceremonies: {timeout: 61m}\n", "ceremonies.timeout must be 10s to 1h"},
		{"no time for signing", small + "signing: {timeout: 0s}\n", "signing.timeout must be 1s to 5m"},
		{"too much time for signing", small + "signing: {timeout: 6m}\n", "signing.timeout must be 1s to 5m"},
		{"no signature at once", small + "signing: {max_concurrent: 0}\n", "signing.max_concurrent must be 1 to 256"},
		{"too many at once", small + "signing: {max_concurrent: 257}\n", "signing.max_concurrent must be 1 to 256"},
		{"an unknown level", small + "log: {level: trace}\n", "log.level must be debug, info, warn or error"},
		{"a level between", small + "log: {level: INFO+2}\n", "log.level must be debug, info, warn or error"},
		{"an unknown format", small + "log: {format: xml}\n", `log.format must be "text" or "json", not "xml"`},
		{"a whole book", small + "#" + strings.Repeat("x", maxFile) + "\n", "larger than 262144 bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := Parse([]byte(test.file))
			if err == nil {
				t.Fatalf("it was taken: %+v", c)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want it to say %q", err, test.want)
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "config.") && !strings.Contains(err.Error(), "into config.") {
				t.Errorf("%q is not a line for people", err)
			}
		})
	}
}

// The same file gives the same complaint: nobody chases two errors by turns.
func TestTheFirstMistakeIsNamed(t *testing.T) {
	file := small + "state_dir: x\nsockets: {app: {path: y, mode: z}}\n    "
	for range 50 {
		_, err := Parse([]byte(file))
		if err == nil || !strings.HasPrefix(err.Error(), "state_dir") {
			t.Fatalf("got %v, want state_dir first", err)
		}
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "no.yaml")
	if _, err := Load(missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("a missing file: got %v", err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a directory: got %v", err)
	}
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("x: y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(bad); err == nil || !strings.Contains(err.Error(), bad) || !strings.Contains(err.Error(), "line 1: field x not found") {
		t.Errorf("a bad file: got %v", err)
	}
}

func TestModes(t *testing.T) {
	for mode, want := range map[string]os.FileMode{"0600": 0o600, "0620": 0o620, "0660": 0o660, "0666": 0o666} {
		if got, err := (Socket{Mode: mode}).FileMode(); err != nil || got != want {
			t.Errorf("%s: got %o, %v", mode, got, err)
		}
	}
	// Without quotes YAML reads a number; the digits are still what counts.
	c, err := Parse([]byte(small + "sockets: {app: {mode: 0666}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Sockets.App.FileMode(); err != nil || got != 0o666 {
		t.Errorf("0666 without quotes: got %o, %v", got, err)
	}
}

func TestLoggerSpeaksAsConfigured(t *testing.T) {
	for _, test := range []struct {
		log  Log
		want string
	}{
		{Log{"info", "text"}, "level=INFO msg=seen n=1\n"},
		{Log{"debug", "json"}, `"level":"DEBUG","msg":"unseen"}` + "\n"},
		{Log{"error", "text"}, ""},
	} {
		var out strings.Builder
		log, err := test.log.Logger(&out)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("seen", "n", 1)
		log.Debug("unseen")
		if !strings.HasSuffix(out.String(), test.want) || test.want == "" && out.Len() > 0 {
			t.Errorf("%+v: got %q, want it to end with %q", test.log, out.String(), test.want)
		}
	}
	if _, err := (Log{Level: "loud"}).Logger(os.Stderr); err == nil {
		t.Error("an unknown level makes a logger")
	}
}

func TestProviderReachesHSM(t *testing.T) {
	c, err := Parse([]byte(small + "    token_serial: \"0123\"\n    call_timeout: 7s\n    env: {B: \"2\", A: 1=1}\nstate_dir: /s\n"))
	if err != nil {
		t.Fatal(err)
	}
	h := c.HSM(slog.Default())
	if h.Module != "/usr/lib/softhsm/libsofthsm2.so" || h.TokenLabel != "sigild" || h.TokenSerial != "0123" ||
		h.PINFile != "/etc/sigild/hsm-pin" || h.LatchFile != "/s/pin-failed" || h.CallTimeout.Seconds() != 7 ||
		fmt.Sprint(h.EnvAllow) != "[A=1=1 B=2]" || h.Log == nil {
		t.Errorf("got %+v", h)
	}
}

func TestURIReachesHSM(t *testing.T) {
	c, err := Parse([]byte(strings.Replace(small, "token_label: sigild", "uri: \"pkcs11:token=sigild;serial=0123\"", 1) + "    allow_imported_kek: true\n"))
	if err != nil {
		t.Fatal(err)
	}
	if h := c.HSM(slog.Default()); h.URI != "pkcs11:token=sigild;serial=0123" || h.TokenLabel != "" || !h.AllowImportedKEK {
		t.Errorf("got %+v", h)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(readManual(f))
	f.Add([]byte(small))
	f.Add([]byte(small + "roles: &r {app: {uids: [1]}}\nsockets: *r\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("? {}\n: !!binary x\n"))
	f.Add([]byte("<<: {state_dir: /x}\n" + small))
	f.Add([]byte("%YAML 1.1\n---\n!!map {provider: !!null }\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Error("a refusal says nothing")
			}
			return
		}
		// What passes is complete: nothing later in the start needs another check.
		if err := c.check(); err != nil {
			t.Errorf("what was taken doesn't check: %v", err)
		}
		again, err := Parse([]byte(text(t, c)))
		if err != nil || text(t, again) != text(t, c) {
			t.Errorf("it reads differently the second time (%v):\n%s\n%s", err, text(t, c), text(t, again))
		}
	})
}
