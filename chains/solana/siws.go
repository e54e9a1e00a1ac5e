package solana

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sigild/sigild/chains"
)

// Sign In With Solana, the text that wallets sign as it is (Wallet Standard,
// solana:signIn), in just the form that createSignInMessageText writes:
//
//	<domain> wants you to sign in with your Solana account:
//	<address>
//
//	<statement>
//
//	URI: … Version: … Chain ID: … Nonce: … Issued At: … Expiration Time: …
//	Not Before: … Request ID: …   (one a line, in this order, each may be missing)
//	Resources:
//	- <URI>
//
// Statement and fields may be missing, with the empty line before them.

// SIWSType lays out the root "solana.siws". What the text does not say is absent.
var SIWSType = structOf(
	chains.Field{Name: "domain", Type: typeString, Doc: "who asks to sign in, host and port"},
	chains.Field{Name: "address", Type: typePubkey, Doc: "the account that signs in"},
	chains.Field{Name: "statement", Type: typeString, Doc: "a sentence for people"},
	chains.Field{Name: "uri", Type: typeString, Doc: "what is signed in to"},
	chains.Field{Name: "chain_id", Type: typeString, Doc: "'mainnet', 'solana:devnet', …"},
	chains.Field{Name: "nonce", Type: typeString, Doc: "what makes the text unique"},
	chains.Field{Name: "issued_at", Type: typeString, Doc: "RFC 3339"},
	chains.Field{Name: "expiration_time", Type: typeString, Doc: "RFC 3339"},
	chains.Field{Name: "not_before", Type: typeString, Doc: "RFC 3339"},
	chains.Field{Name: "request_id", Type: typeString, Doc: "the asker's own id"},
	chains.Field{Name: "resources", Type: listOf(typeString), Doc: "URIs; absent when the text has none"},
)

const (
	siwsAsks    = " wants you to sign in with your Solana account:"
	maxResource = 64
)

// siwsFields are the fields in their order. The version is 1, so it is no part of
// the view.
var siwsFields = [...]struct{ starts, field string }{
	{"URI: ", "uri"}, {"Version: ", ""}, {"Chain ID: ", "chain_id"}, {"Nonce: ", "nonce"}, {"Issued At: ", "issued_at"},
	{"Expiration Time: ", "expiration_time"}, {"Not Before: ", "not_before"}, {"Request ID: ", "request_id"},
}

func readSIWS(text string, wallet *[32]byte, w *writer) (chains.Value, error) {
	bad := func(format string, args ...any) (chains.Value, error) {
		return chains.Value{}, fail(chains.CodeForm, -1, "not a sign-in text: "+format, args...)
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && unicode.IsControl(r) }) {
		return bad("control characters or no UTF-8")
	}
	lines := strings.Split(text, "\n")
	domain, asks := strings.CutSuffix(lines[0], siwsAsks)
	if !asks || !token(domain) || len(lines) < 2 {
		return bad("its first line does not ask to sign in")
	}
	address, err := ParseAddress(lines[1])
	if err != nil {
		return bad("its second line is no account")
	}
	if wallet != nil && address != *wallet {
		return chains.Value{}, fail(chains.CodeSigner, -1, "the text signs in %s, not wallet %s", lines[1], Address(*wallet))
	}
	fields := make([]chains.Value, len(SIWSType.Fields))
	fields[0], fields[1] = chains.StringValue(domain), chains.PubkeyValue(address)
	rest := lines[2:]
	if len(rest) > 0 && (len(rest) < 2 || rest[0] != "" || rest[1] == "") {
		return bad("an empty line stands before statement and fields")
	}
	if len(rest) > 0 && !siwsField(rest[1]) {
		fields[2] = chains.StringValue(rest[1])
		if rest = rest[2:]; len(rest) > 0 && (len(rest) < 2 || rest[0] != "" || !siwsField(rest[1])) {
			return bad("the statement is one line, with an empty one after it")
		}
	}
	if len(rest) > 0 {
		if err := readSIWSFields(rest[1:], fields); err != nil {
			return chains.Value{}, err
		}
	}
	w.WriteString("sign in to ")
	w.quoteAll([]byte(domain))
	w.WriteString(" with account ")
	w.address(&address)
	for _, name := range []string{"statement", "uri", "nonce", "expiration_time"} {
		if v := fields[SIWSType.Index(name)]; v.Kind == chains.KindString {
			w.WriteString(", ")
			w.WriteString(strings.ReplaceAll(name, "_", " "))
			w.WriteByte(' ')
			w.quoteAll([]byte(v.Str))
		}
	}
	return chains.StructValue(fields...), nil
}

// siwsField reports whether a line is one of the fields.
func siwsField(line string) bool {
	for _, f := range siwsFields {
		if strings.HasPrefix(line, f.starts) {
			return true
		}
	}
	return line == "Resources:"
}

func readSIWSFields(lines []string, fields []chains.Value) error {
	bad := func(format string, args ...any) error {
		return fail(chains.CodeForm, -1, "not a sign-in text: "+format, args...)
	}
	next := 0
	for i, line := range lines {
		if line == "Resources:" {
			resources := lines[i+1:]
			if len(resources) == 0 || len(resources) > maxResource {
				return bad("1 to %d resources", maxResource)
			}
			list := make([]chains.Value, len(resources))
			for k, r := range resources {
				uri, ok := strings.CutPrefix(r, "- ")
				if !ok || !token(uri) {
					return bad("resource %d", k)
				}
				list[k] = chains.StringValue(uri)
			}
			fields[len(fields)-1] = chains.ListValue(list...)
			return nil
		}
		for next < len(siwsFields) && !strings.HasPrefix(line, siwsFields[next].starts) {
			next++
		}
		if next == len(siwsFields) {
			return bad("a line is no field, or fields are not in their order")
		}
		f := siwsFields[next]
		next++
		value := line[len(f.starts):]
		switch {
		case !token(value):
			return bad("a field is empty or has spaces")
		case f.field == "" && value != "1":
			return bad("unsupported version")
		case strings.HasSuffix(f.field, "_at") || strings.HasSuffix(f.field, "_time") || strings.HasSuffix(f.field, "_before"):
			if _, err := time.Parse(time.RFC3339Nano, value); err != nil {
				return bad("%s is no time", f.field)
			}
		}
		if f.field != "" {
			fields[SIWSType.Index(f.field)] = chains.StringValue(value)
		}
	}
	return nil
}

// token reports whether s is something without spaces.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, unicode.IsSpace)
}
