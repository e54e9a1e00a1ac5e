package evm

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// etherChains pay their fees in ether; elsewhere the coin's name is not known here.
var etherChains = map[uint64]bool{
	1: true, 10: true, 8453: true, 42161: true, 17000: true, 84532: true, 11155111: true, 560048: true,
}

// maxSpoken is how many calls a summary tells of.
const maxSpoken = 20

// coins writes an amount of wei, e.g. "0.5 ETH (500000000000000000 wei)".
func coins(chainID, wei *uint256.Int) string {
	unit := "native coins"
	if chainID.IsUint64() && etherChains[chainID.Uint64()] {
		unit = "ETH"
	}
	return fmt.Sprintf("%s %s (%s wei)", chains.FormatUnits(wei, 18), unit, wei.Dec())
}

// summary says in one line of ASCII what the transaction does.
func (t *tx) summary(calls *tree, auths int, own bool) string {
	var s strings.Builder
	s.WriteString(calls.summary())
	if auths > 0 {
		fmt.Fprintf(&s, "; put code behind %d accounts by their authorizations (EIP-7702)", auths)
	}
	if own {
		s.WriteString(", THIS ACCOUNT among them")
	}
	var fee uint256.Int
	t.fee(&fee)
	fmt.Fprintf(&s, " on chain %s; fee at most %s; nonce %d", t.chainID.Dec(), coins(&t.chainID, &fee), t.nonce)
	return s.String()
}

// summary says what the calls do: the first, and each that is inside it.
func (t *tree) summary() string {
	var s strings.Builder
	for i := range t.calls {
		c := &t.calls[i]
		if i == maxSpoken {
			fmt.Fprintf(&s, "; and %d calls more", len(t.calls)-i)
			break
		}
		if i > 0 {
			fmt.Fprintf(&s, "; inside (%s): ", c.path)
		}
		t.say(&s, c)
	}
	if t.truncated {
		s.WriteString("; and more calls than are looked at")
	}
	return s.String()
}

// say writes one call as a clause.
func (t *tree) say(s *strings.Builder, c *call) {
	value := coins(t.chainID, &c.value)
	if c.op == opDelegate {
		fmt.Fprintf(s, "RUN THE CODE of %s as account %s: ", Checksum(c.to), Checksum(c.from))
	}
	switch {
	case c.op == opCreate:
		fmt.Fprintf(s, "create a contract from %d bytes of code (not understood) with %s", len(c.data), value)
		return
	case c.status == dataNone:
		fmt.Fprintf(s, "send %s to %s", value, Checksum(c.to))
		return
	case c.status != dataExact:
		fmt.Fprintf(s, "call %s with %s and %d bytes of data (0x%x, not understood)",
			Checksum(c.to), value, len(c.data), c.data[:min(4, len(c.data))])
		return
	case c.known != nil && c.known.says != nil:
		s.WriteString(c.known.says(c))
	default:
		fmt.Fprintf(s, "call %s of %s", ascii(c.fn.signature, 120), Checksum(c.to))
	}
	switch {
	case c.value.IsZero():
	case c.known != nil && c.known.says != nil:
		fmt.Fprintf(s, ", and send the token contract %s", value)
	default:
		fmt.Fprintf(s, ", and send it %s", value)
	}
}

func sayTransfer(c *call) string {
	n := c.args[1].uint()
	return fmt.Sprintf("transfer %s raw units of token %s to %s", n.Dec(), Checksum(c.to), Checksum(c.args[0].address()))
}

func sayTransferFrom(c *call) string {
	n := c.args[2].uint()
	return fmt.Sprintf("transfer %s raw units of token %s from %s to %s", n.Dec(), Checksum(c.to), Checksum(c.args[0].address()), Checksum(c.args[1].address()))
}

func sayApprove(c *call) string {
	n := c.args[1].uint()
	amount := n.Dec() + " raw units"
	if n.BitLen() == 256 {
		amount = "UNLIMITED amounts"
	}
	return fmt.Sprintf("let %s take %s of token %s", Checksum(c.args[0].address()), amount, Checksum(c.to))
}

func sayApproveAll(c *call) string {
	if !c.args[1].bool() {
		return fmt.Sprintf("no longer let %s take tokens of %s", Checksum(c.args[0].address()), Checksum(c.to))
	}
	return fmt.Sprintf("let %s take ALL tokens of %s", Checksum(c.args[0].address()), Checksum(c.to))
}

// ascii writes text for a line of a summary: escaped, and cut after n bytes.
func ascii(s string, n int) string {
	q := strconv.QuoteToASCII(s)
	if q = q[1 : len(q)-1]; len(q) > n {
		q = q[:n] + "..."
	}
	return q
}
