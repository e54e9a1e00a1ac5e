package solana

import (
	"strconv"
	"strings"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// maxText is how much of a text that somebody else wrote a summary shows, in bytes.
const maxText = 80

// maxQuoted is how much of a text that is what is signed, in bytes.
const maxQuoted = 2048

// maxShown is how much a summary shows of what an IDL reads, in bytes.
const maxShown = 400

// maxDecimals is how many decimals a summary writes; a u64 has no use for more.
const maxDecimals = 20

// writer collects a summary, sentence by sentence.
type writer struct{ strings.Builder }

func (w *writer) next() {
	if w.Len() > 0 {
		w.WriteString("; ")
	}
}

func (w *writer) number(n uint64) {
	var b [20]byte
	w.Write(strconv.AppendUint(b[:0], n, 10))
}

// quote writes text in ASCII and cut.
func (w *writer) quote(b []byte) {
	cut := ""
	if len(b) > maxText {
		b, cut = b[:maxText], " and more"
	}
	w.WriteString(strconv.QuoteToASCII(string(b)))
	w.WriteString(cut)
}

// quoteAll writes text of which a signature is about, in ASCII: nearly all of it.
func (w *writer) quoteAll(b []byte) {
	cut := 0
	if len(b) > maxQuoted {
		cut, b = len(b)-maxQuoted, b[:maxQuoted]
	}
	w.WriteString(strconv.QuoteToASCII(string(b)))
	if cut > 0 {
		w.WriteString(" and ")
		w.number(uint64(cut))
		w.WriteString(" bytes more")
	}
}

// account writes the address of account i.
func (w *writer) account(m *message, i int) {
	k := m.key(i)
	if k == nil {
		w.WriteString("an account behind a lookup table")
		return
	}
	w.address(k)
}

func (w *writer) address(k *[32]byte) {
	var b [96]byte
	w.Write(appendBase58(b[:0], k[:]))
}

// sol writes an amount of lamports, e.g. "0.5 SOL (500000000 lamports)".
func (w *writer) sol(lamports *uint256.Int) {
	w.WriteString(chains.FormatUnits(lamports, 9))
	w.WriteString(" SOL (")
	w.WriteString(lamports.Dec())
	w.WriteString(" lamports)")
}

// summary says in ASCII what the message does, instruction by instruction.
func (e *effects) summary() string {
	m, w := e.m, &writer{}
	room := 100
	for i := range e.sense {
		if s := e.sense[i].spec; s != nil {
			room += s.room
		} else {
			room += 120
		}
	}
	w.Grow(room)
	for i := range m.ins {
		switch s := e.sense[i]; {
		case s.idl != nil:
			w.next()
			e.byIDL(w, i)
		case s.spec == nil:
			w.next()
			e.notUnderstood(w, i)
		case i == 0 && e.nonce != nil:
			w.next()
			w.WriteString("use the durable nonce of ")
			w.account(m, e.nonce.account)
			w.WriteString(" (never expires)")
		case s.spec.says != "":
			w.next()
			e.call(uint8(i)).say(w)
		}
	}
	if n := m.hidden(); n > 0 {
		w.next()
		w.number(uint64(n))
		w.WriteString(" accounts are behind lookup tables and not known")
	}
	for i := range m.signers {
		if !m.ours(i, e.wallet) {
			w.next()
			w.WriteString("also signed by ")
			w.account(m, i)
		}
	}
	w.next()
	fee, bounded := e.fee()
	switch {
	case !m.ours(0, e.wallet):
		w.WriteString("fee paid by ")
		w.account(m, 0)
	case !bounded:
		w.WriteString("fee not known")
	default:
		w.WriteString("fee at most ")
		w.sol(&fee)
	}
	return w.String()
}

// say writes the sentence of a call, with what its names stand for.
func (c *call) say(w *writer) {
	text := c.says
	for {
		plain, rest, more := strings.Cut(text, "$")
		w.WriteString(plain)
		if !more {
			return
		}
		end := strings.IndexFunc(rest, func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') })
		if end < 0 {
			end = len(rest)
		}
		c.sayName(w, rest[:end])
		text = rest[end:]
	}
}

func (c *call) sayName(w *writer, name string) {
	for k, a := range c.accounts {
		if bare(a) == name {
			w.account(c.m, c.account(k))
			return
		}
	}
	for _, a := range c.args {
		if a.name == name {
			c.sayValue(w, a.typ, c.arg(name))
			return
		}
	}
}

func (c *call) sayValue(w *writer, t argType, b []byte) {
	switch t {
	case tMaybeKey, tMaybeI64, tMaybeU64:
		inner := map[argType]argType{tMaybeKey: tKey, tMaybeI64: tI64, tMaybeU64: tU64}[t]
		if b[0] == 1 {
			c.sayValue(w, inner, b[1:])
		} else if t == tMaybeKey {
			w.WriteString("nobody")
		} else {
			w.WriteString("unchanged")
		}
	case tLamports:
		n := t.value(b).Int
		w.sol(&n)
	case tUnits:
		n := t.value(b).Int
		if decimals := c.arg("decimals"); decimals != nil && decimals[0] <= maxDecimals {
			w.WriteString(chains.FormatUnits(&n, int(decimals[0])))
			w.WriteString(" (")
			w.WriteString(n.Dec())
			w.WriteString(" units)")
			return
		}
		w.WriteString(n.Dec())
		w.WriteString(" units")
	case tKey:
		w.address((*[32]byte)(b))
	case tSeed:
		w.quote(b[8:])
	case tText:
		w.quote(b)
	case tTokenAuthority, tStakeAuthority:
		w.WriteString(t.value(b).Str)
	default:
		v := t.value(b)
		if v.Neg {
			w.WriteByte('-')
		}
		w.WriteString(v.Int.Dec())
	}
}

func (e *effects) notUnderstood(w *writer, i int) {
	in := &e.m.ins[i]
	key := e.m.key(int(in.program))
	w.WriteString("call ")
	w.address(key)
	if p := programs[*key]; p != nil {
		w.WriteString(" (")
		w.WriteString(p.name)
		if s := p.find(e.m.data(in)); s != nil {
			w.WriteByte(' ')
			w.WriteString(s.name)
		}
		w.WriteByte(')')
	}
	w.WriteString(" with ")
	w.number(uint64(in.naccounts))
	w.WriteString(" accounts and ")
	w.number(uint64(in.ndata))
	w.WriteString(" bytes of data (not understood)")
}

// byIDL says what an uploaded IDL reads; what it does to balances nobody knows.
func (e *effects) byIDL(w *writer, i int) {
	in := &e.m.ins[i]
	w.WriteString("call ")
	w.address(e.m.key(int(in.program)))
	x := e.sense[i].idl
	w.WriteString(", by its IDL ")
	w.WriteString(x.name)
	w.WriteByte('(')
	x.say(w, e.m.data(in))
	w.WriteString("), effect on balances not known")
}
