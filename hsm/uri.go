package hsm

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"
)

// CheckURI says whether uri is a PKCS#11 URI that Config.URI takes: RFC 7512 with
// token, serial, manufacturer and model, of which token or serial, and nothing else.
func CheckURI(uri string) error {
	_, err := parseURI(uri)
	return err
}

// parseURI reads a PKCS#11 URI (RFC 7512 §2.3) that names a token by token, serial,
// manufacturer and model; at least token or serial. What else such a URI can say is
// refused, with the reason: an attribute that is passed over in silence is one that
// somebody believed in.
func parseURI(uri string) (selection, error) {
	fail := func(why string) (selection, error) {
		return selection{}, fmt.Errorf("reading the PKCS#11 URI: %s", why)
	}
	rest, ok := strings.CutPrefix(uri, "pkcs11:")
	switch {
	case !ok:
		return fail("it does not begin with pkcs11:")
	case len(uri) > 1024:
		return fail("it has more than 1024 bytes")
	case strings.Contains(rest, "pin-value"):
		return fail("a PIN does not belong in a configuration; set pin_file")
	}
	path, query, hasQuery := strings.Cut(rest, "?")
	if hasQuery {
		name, _, _ := strings.Cut(query, "=")
		return fail(fmt.Sprintf("%.40q after ? is not taken; module and pin_file have keys of their own", name))
	}
	var who selection
	taken := map[string]*string{"token": &who.label, "serial": &who.serial, "manufacturer": &who.manufacturer, "model": &who.model}
	longest := map[string]int{"token": 32, "serial": 16, "manufacturer": 32, "model": 16}
	for part := range strings.SplitSeq(path, ";") {
		name, raw, ok := strings.Cut(part, "=")
		if !ok {
			return fail(fmt.Sprintf("%.40q is no name=value", part))
		}
		into := taken[name]
		if into == nil {
			return fail(fmt.Sprintf("%.40q is not taken: a token is named by token, serial, manufacturer and model, keys by their keyslots, and slots change", name))
		}
		value, err := unescapeURI(raw)
		switch {
		case err != nil:
			return fail(fmt.Sprintf("the value of %s: %v", name, err))
		case value == "":
			return fail(name + " is empty")
		case len(value) > longest[name]:
			return fail(fmt.Sprintf("%s has more than %d bytes", name, longest[name]))
		case *into != "":
			return fail(name + " is given twice")
		}
		*into = value
	}
	if who.label == "" && who.serial == "" {
		return fail("neither token nor serial is given")
	}
	return who, nil
}

// unescapeURI undoes percent-encoding; what RFC 7512 wants encoded must be.
func unescapeURI(raw string) (string, error) {
	for _, c := range []byte(raw) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("-._~:[]@!$'()*+,=&%", rune(c)) {
			return "", fmt.Errorf("byte %#02x must be percent-encoded", c)
		}
	}
	value, err := url.PathUnescape(raw)
	if err != nil {
		return "", errors.New("a percent sign without two hex digits")
	}
	if !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errors.New("not printable UTF-8")
	}
	return value, nil
}
