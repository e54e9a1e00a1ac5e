package policy

import (
	"fmt"
	"strings"

	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/solana"
)

// Assets are named by CAIP-19 ids, in one spelling each.

// caip2 and caip19 check the grammars of CAIP-2 and CAIP-19.
func caip2(s string) bool {
	namespace, reference, ok := strings.Cut(s, ":")
	return ok && spelled(namespace, 3, 8, "-") && strings.ToLower(namespace) == namespace && spelled(reference, 1, 32, "-_")
}

func caip19(s string) bool {
	namespace, reference, ok := strings.Cut(s, ":")
	return ok && spelled(namespace, 3, 8, "-") && strings.ToLower(namespace) == namespace && spelled(reference, 1, 128, "-.%")
}

// spelled reports whether s is letters, digits and the given others.
func spelled(s string, least, most int, others string) bool {
	for i := range len(s) {
		if c := s[i]; c == '_' || !isLetter(c) && !isDigit(c) {
			if strings.IndexByte(others, c) < 0 {
				return false
			}
		}
	}
	return len(s) >= least && len(s) <= most
}

// CanonicalAsset returns the one spelling of a CAIP-19 id by which charges and
// limits are compared: token contracts of EVM chains in lower case. It refuses
// what the chains of this build cannot charge for.
func CanonicalAsset(s string) (string, error) {
	chain, asset, ok := strings.Cut(s, "/")
	if !ok || !caip2(chain) || !caip19(asset) {
		return "", fmt.Errorf("reading asset %q: not a CAIP-19 id", s)
	}
	family, chainRef, _ := strings.Cut(chain, ":")
	standard, reference, _ := strings.Cut(asset, ":")
	bad := func(why string) (string, error) { return "", fmt.Errorf("reading asset %q: %s", s, why) }
	switch {
	case family != "eip155" && family != "solana":
		return bad("unknown chain family " + family)
	case family == "eip155" && !decimal(chainRef):
		return bad("an EVM chain id is decimal")
	case standard == "slip44":
		if !decimal(reference) {
			return bad("a slip44 coin is decimal")
		}
		return s, nil
	case family == "eip155" && (standard == "erc20" || standard == "erc721" || standard == "erc1155"):
		a, err := evm.ParseAddress(reference)
		if err != nil {
			return bad(strings.TrimPrefix(err.Error(), "parsing address: "))
		}
		return fmt.Sprintf("%s/%s:0x%x", chain, standard, a), nil
	case family == "solana" && standard == "token":
		if _, err := solana.ParseAddress(reference); err != nil {
			return bad("a mint is base58 of 32 bytes")
		}
		return s, nil
	}
	return bad("unknown asset standard " + standard)
}

func decimal(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == "" && (s == "0" || s[0] != '0')
}

// nativeDecimals are those of the chains' own coins, by slip44 number; ok is false
// where this build knows none.
func nativeDecimals(asset string) (decimals int, ok bool) {
	_, coin, native := strings.Cut(asset, "/slip44:")
	switch {
	case native && strings.HasPrefix(asset, "eip155:"):
		return 18, true
	case native && coin == "501":
		return 9, true
	}
	return 0, false
}
