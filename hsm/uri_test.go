package hsm

import (
	"strings"
	"testing"
)

func TestURIOfAToken(t *testing.T) {
	for uri, want := range map[string]selection{
		"pkcs11:token=sigild":                                   {label: "sigild"},
		"pkcs11:serial=DECC0401648":                             {serial: "DECC0401648"},
		"pkcs11:serial=12;token=a":                              {label: "a", serial: "12"},
		"pkcs11:token=The%20Software%20PKCS%2311;serial=1%3b2":  {label: "The Software PKCS#11", serial: "1;2"},
		"pkcs11:model=p15EMV;manufacturer=Acme,%20Inc.;token=t": {label: "t", manufacturer: "Acme, Inc.", model: "p15EMV"},
		"pkcs11:token=gr%C3%BCn":                                {label: "grün"},
	} {
		if got, err := parseURI(uri); err != nil || got != want {
			t.Errorf("reading %s: %+v, %v, want %+v", uri, got, err, want)
		}
	}
	for uri, words := range map[string]string{
		"":                                          "does not begin with pkcs11:",
		"PKCS11:token=a":                            "does not begin with pkcs11:",
		"pkcs11:":                                   "no name=value",
		"pkcs11:token":                              "no name=value",
		"pkcs11:token=":                             "token is empty",
		"pkcs11:token=a;":                           "no name=value",
		"pkcs11:token=a;token=b":                    "given twice",
		"pkcs11:model=x":                            "neither token nor serial",
		"pkcs11:token=a;object=kek":                 "is not taken",
		"pkcs11:token=a;slot-id=0":                  "slots change",
		"pkcs11:token=a;x-vendor=1":                 "is not taken",
		"pkcs11:token=a?pin-value=1234":             "a PIN does not belong",
		"pkcs11:token=a?pin-source=/f":              "pin_file have keys of their own",
		"pkcs11:token=a?module-path=/m":             "module and pin_file",
		"pkcs11:token=a b":                          "must be percent-encoded",
		"pkcs11:token=a%2":                          "without two hex digits",
		"pkcs11:token=%ff":                          "not printable UTF-8",
		"pkcs11:token=%0a":                          "not printable UTF-8",
		"pkcs11:serial=12345678901234567":           "more than 16 bytes",
		"pkcs11:token=" + strings.Repeat("a", 2000): "more than 1024 bytes",
	} {
		got, err := parseURI(uri)
		if err == nil || !strings.Contains(err.Error(), words) || got != (selection{}) {
			t.Errorf("reading %.60s: %+v, %v, want an error that says %q", uri, got, err, words)
		}
		if err != nil && strings.Contains(err.Error(), "1234\"") {
			t.Errorf("the error quotes a PIN: %v", err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	for _, s := range []string{"pkcs11:token=a;serial=b", "pkcs11:token=%41%", "pkcs11:manufacturer=a;model=b;token=c", "pkcs11:;=?", "pkcs11:token=a?x=y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		who, err := parseURI(s)
		if err != nil {
			return
		}
		if who.label == "" && who.serial == "" || len(who.label) > 32 || len(who.serial) > 16 || len(who.manufacturer) > 32 || len(who.model) > 16 {
			t.Errorf("%q selects %+v", s, who)
		}
	})
}
