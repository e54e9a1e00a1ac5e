package evm

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Typed data that moves value, told by its exact form (encodeType): permits of
// tokens (ERC-2612, DAI), transfers under ERC-3009, Permit2, Safe transactions.
// Everything else can be an order, a loan, a meta-transaction: it is opaque, and
// native coins are charged without a bound.

const (
	formPermit      = "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
	formDAI         = "Permit(address holder,address spender,uint256 nonce,uint256 expiry,bool allowed)"
	form3009        = "WithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
	formCancel3009  = "CancelAuthorization(address authorizer,bytes32 nonce)"
	formDetails     = "PermitDetails(address token,uint160 amount,uint48 expiration,uint48 nonce)"
	formPermitted   = "TokenPermissions(address token,uint256 amount)"
	formPermit2     = "PermitSingle(PermitDetails details,address spender,uint256 sigDeadline)" + formDetails
	formPermit2N    = "PermitBatch(PermitDetails[] details,address spender,uint256 sigDeadline)" + formDetails
	formTransfer    = "PermitTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline)" + formPermitted
	formTransferN   = "PermitBatchTransferFrom(TokenPermissions[] permitted,address spender,uint256 nonce,uint256 deadline)" + formPermitted
	prefixWitness   = "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,"
	prefixWitnessN  = "PermitBatchWitnessTransferFrom(TokenPermissions[] permitted,address spender,uint256 nonce,uint256 deadline,"
	permit2Contract = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
)

var permit2Address = mustAddress(permit2Contract)

// decodeTypedData reads typed data from its JSON text.
func decodeTypedData(raw []byte, o Options) (*chains.Decoded, error) {
	p, err := parseTypedData(raw)
	if err != nil {
		return nil, err
	}
	d := &chains.Decoded{
		Sign: chains.SignInput{Digest: p.digest},
		View: chains.View{TypedDataRoot: p.view},
	}
	var chainID uint256.Int
	if id := p.domain.List[2]; id.Kind == chains.KindInt {
		chainID = id.Int
	}
	d.Chain = chainName(&chainID)
	contract := p.domain.List[3]
	if contract.Kind != chains.KindAddress || chainID.IsZero() {
		p.unknown(d)
		return d, nil
	}
	s := &signedData{parsedTypedData: p, d: d, contract: [20]byte(contract.Raw)}
	if p.form == safeForm {
		safe := safeOf(&chainID, s.contract, p.message)
		if safe.operation.GtUint64(1) {
			return nil, fail(chains.CodeSemantic, -1, "operation of a Safe transaction is 0, a call, or 1, a delegatecall")
		}
		safe.judge(d, safe.flatten(o))
		return d, nil
	}
	if !s.permits() {
		d.Charges = nil
		p.unknown(d)
	}
	return d, nil
}

// unknown marks what is not understood.
func (p *parsedTypedData) unknown(d *chains.Decoded) {
	d.Opaque = true
	d.Charges = append(d.Charges, unbounded(d.Chain, ""))
	where := "on chain " + strings.TrimPrefix(d.Chain, "eip155:")
	if d.Chain == "eip155" {
		where = "on EVERY chain"
	}
	who := ""
	if name := p.domain.List[0]; name.Kind == chains.KindString {
		who = fmt.Sprintf(" for \"%s\"", ascii(name.Str, 80))
	}
	if contract := p.domain.List[3]; contract.Kind == chains.KindAddress {
		who += " at " + Checksum([20]byte(contract.Raw))
	}
	d.Summary = fmt.Sprintf("sign typed data \"%s\"%s %s (what it allows is not understood)", ascii(p.view.List[0].Str, 80), who, where)
}

// signedData is typed data of a contract on one chain.
type signedData struct {
	*parsedTypedData
	d        *chains.Decoded
	contract [20]byte
	said     []string
}

// permits charges what the form allows; false: the form is not known.
func (s *signedData) permits() bool {
	m := s.message
	switch form := s.form; {
	case form == formPermit:
		s.allow(s.contract, m.Get("value").Int, *m.Get("spender"), false)
	case form == formDAI:
		allowed := !m.Get("allowed").Int.IsZero()
		if !allowed {
			s.said = append(s.said, fmt.Sprintf("no longer let %s take token %s", Checksum([20]byte(m.Get("spender").Raw)), Checksum(s.contract)))
		} else {
			s.allow(s.contract, uint256.Int{}, *m.Get("spender"), true)
		}
	case form == "Transfer"+form3009, form == "Receive"+form3009:
		s.charge(s.contract, m.Get("value").Int, *m.Get("to"), "transfer")
		n := m.Get("value").Int
		s.said = append(s.said, fmt.Sprintf("let anybody transfer %s raw units of token %s to %s", n.Dec(), Checksum(s.contract), Checksum([20]byte(m.Get("to").Raw))))
	case form == formCancel3009:
		s.said = append(s.said, fmt.Sprintf("cancel an authorization to transfer token %s", Checksum(s.contract)))
	case s.contract != permit2Address:
		return false
	case form == formPermit2:
		s.allowDetails(*m.Get("details"))
	case form == formPermit2N:
		s.allowDetails(m.Get("details").List...)
	case form == formTransfer, strings.HasPrefix(form, prefixWitness) && strings.Contains(form, ")"+formPermitted):
		s.allowDetails(*m.Get("permitted"))
	case form == formTransferN, strings.HasPrefix(form, prefixWitnessN) && strings.Contains(form, ")"+formPermitted):
		s.allowDetails(m.Get("permitted").List...)
	default:
		return false
	}
	s.d.Summary = fmt.Sprintf("sign a permit: %s on chain %s", strings.Join(s.said, "; "), strings.TrimPrefix(s.d.Chain, "eip155:"))
	return true
}

// allowDetails: structs of token and amount that the spender may take.
func (s *signedData) allowDetails(details ...chains.Value) {
	for _, v := range details {
		amount := v.Map.Get("amount").Int
		s.allow([20]byte(v.Map.Get("token").Raw), amount, *s.message.Get("spender"), false)
	}
	switch more := len(details) - maxSpoken; {
	case more > 0:
		s.said = append(s.said, fmt.Sprintf("and %d tokens more", more))
	case len(details) == 0:
		s.said = append(s.said, "nothing")
	}
}

// allow says and charges that a spender may take an amount, or everything.
func (s *signedData) allow(token [20]byte, amount uint256.Int, spender chains.Value, everything bool) {
	what := amount.Dec() + " raw units"
	switch {
	case everything:
		what = "UNLIMITED amounts"
		s.d.Charges = append(s.d.Charges, chains.Charge{Chain: s.d.Chain, Asset: s.asset(token), Unbounded: true, What: "approval", To: Checksum([20]byte(spender.Raw))})
	default:
		s.charge(token, amount, spender, "approval")
	}
	if len(s.said) < maxSpoken {
		s.said = append(s.said, fmt.Sprintf("let %s take %s of token %s", Checksum([20]byte(spender.Raw)), what, Checksum(token)))
	}
}

func (s *signedData) charge(token [20]byte, amount uint256.Int, to chains.Value, what string) {
	if !amount.IsZero() {
		s.d.Charges = append(s.d.Charges, chains.Charge{Chain: s.d.Chain, Asset: s.asset(token), Amount: amount, What: what, To: Checksum([20]byte(to.Raw))})
	}
}

func (s *signedData) asset(token [20]byte) string {
	return fmt.Sprintf("%s/erc20:0x%x", s.d.Chain, token)
}

// unhexText reads what hexText wrote.
func unhexText(s string) []byte {
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil { // it was written by hexText
		panic(fmt.Sprintf("evm: %v", err))
	}
	return b
}
