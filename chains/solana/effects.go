package solana

import "github.com/sigild/sigild/chains"

// effects is what a message does, as far as it is understood, seen from a wallet.
type effects struct {
	m *message
	// wallet whose spending is charged; nil: that of every required signer.
	wallet *[32]byte
	chain  string

	// sense is what each instruction was understood as.
	sense []sense
	// partial: some instruction was not understood; it may move anything.
	partial bool
	// yields: something of the wallet's is put under another's control.
	yields bool
	// transfers and spl are the instructions that are transfers of SOL and of tokens.
	transfers, spl []uint8
	charges        []chains.Charge
	budget         budget
	nonceFirst     bool // the transaction hangs on a durable nonce, understood or not
	nonce          *nonce
	// mint and asset remember the last token that was spelled.
	mint  *[32]byte
	asset string
	// native is the asset id of SOL, anyToken that of a token that is not known.
	native, anyToken string
}

// sense is the reading of one instruction: by a spec, by an IDL, or by nothing.
type sense struct {
	spec *spec
	idl  *idlInstruction
}

// nonce is the durable nonce of a transaction, accounts by number.
type nonce struct{ account, authority int }

// anyToken stands for the number of a mint that the instruction does not name.
const anyToken = -1

// effects reads every instruction. The only refusal is a compute budget
// instruction given twice, which the runtime refuses too.
func (m *message) effects(wallet *[32]byte, chain string, idls map[[32]byte]*IDL) (*effects, error) {
	e := &effects{m: m, wallet: wallet, chain: chain, native: chain + "/slip44:501", sense: make([]sense, len(m.ins))}
	e.charges = make([]chains.Charge, 0, 3)
	c := call{m: m}
	for i := range m.ins {
		e.read(i, idls)
		if s := e.sense[i].spec; s != nil && s.does != nil {
			c.spec, c.in, c.i = s, &m.ins[i], i
			s.does(e, &c)
		}
	}
	if err := e.readBudget(); err != nil {
		return nil, err
	}
	e.chargeFee()
	return e, nil
}

// read finds out what instruction i is.
func (e *effects) read(i int, idls map[[32]byte]*IDL) {
	m, in := e.m, &e.m.ins[i]
	key, data := m.key(int(in.program)), m.data(in)
	p := programs[*key]
	if p == nil {
		e.partial = true
		if idl := idls[*key]; idl != nil {
			e.sense[i].idl = idl.match(data)
		}
		return
	}
	s := p.find(data)
	if *key == associatedProgram && len(data) == 0 {
		s = associatedCreate
	}
	if *key == systemProgram && i == 0 && s != nil && s.name == "advanceNonce" {
		e.nonceFirst = true
	}
	c := call{spec: s, m: m, in: in, i: i}
	if s == nil || !c.complete() {
		e.partial = true
		return
	}
	e.sense[i].spec = s
	if e.nonceFirst && i == 0 {
		e.nonce = &nonce{account: c.account(0), authority: c.account(2)}
	}
}

// ours reports whether account i is the wallet, or, without one, a required signer.
func (m *message) ours(i int, wallet *[32]byte) bool {
	if wallet == nil {
		return m.isSigner(i)
	}
	return m.is(i, wallet)
}

// authorizes reports whether the wallet stands behind account k of the call: it
// is that account, or one of the signers of the multisig that the account is.
func (e *effects) authorizes(c *call, k int) bool {
	if e.m.ours(c.account(k), e.wallet) {
		return true
	}
	if c.signers {
		for _, a := range c.extra() {
			if e.m.ours(int(a), e.wallet) {
				return true
			}
		}
	}
	return false
}

func (e *effects) sol() string { return e.native }

// token spells the asset of the mint that is account k of the call.
func (e *effects) token(c *call, k int) string {
	var mint *[32]byte
	if k != anyToken {
		mint = e.m.key(c.account(k))
	}
	if mint == nil {
		if e.anyToken == "" {
			e.anyToken = e.chain + "/" + chains.AnyToken
		}
		return e.anyToken
	}
	if e.mint == nil || *e.mint != *mint {
		e.mint, e.asset = mint, e.chain+"/token:"+Address(*mint)
	}
	return e.asset
}

// charge adds what the wallet spends. Nothing is not charged.
func (e *effects) charge(asset, what string, amount uint64, to int) {
	if amount == 0 {
		return
	}
	c := chains.Charge{Chain: e.chain, Asset: asset, What: what, To: e.m.name(to)}
	c.Amount.SetUint64(amount)
	e.charges = append(e.charges, c)
}

// unbounded charges what has no known bound; a second time adds nothing to that.
func (e *effects) unbounded(c *call, what, asset string, to int) {
	for i := range e.charges {
		if o := &e.charges[i]; o.Unbounded && o.What == what && o.Asset == asset {
			return
		}
	}
	e.charges = append(e.charges, chains.Charge{Chain: e.chain, Asset: asset, What: what, To: e.m.name(c.account(to)), Unbounded: true})
}

// spendLamports charges SOL that leaves by the word of account k.
func (e *effects) spendLamports(c *call, k int, what string, lamports uint64, to int) {
	if e.m.ours(c.account(k), e.wallet) {
		e.charge(e.native, what, lamports, c.account(to))
	}
}

// spendToken charges the instruction's amount of a token.
func (e *effects) spendToken(c *call, authority int, what string, mint, to int) {
	if e.authorizes(c, authority) {
		e.charge(e.token(c, mint), what, c.number("amount"), c.account(to))
	}
}

// sendToken is a transfer; the authority is the last account that the spec names.
func (e *effects) sendToken(c *call, mint, to int) {
	e.spl = append(e.spl, uint8(c.i))
	e.spendToken(c, len(c.accounts)-1, "transfer", mint, to)
}

// approve counts as spending what is approved.
func (e *effects) approve(c *call, mint, delegate int) {
	if e.authorizes(c, len(c.accounts)-1) {
		e.yields = true
	}
	e.spendToken(c, len(c.accounts)-1, "approval", mint, delegate)
}

// handOver charges without bound what the wallet, account k, gives out of its hands.
func (e *effects) handOver(c *call, k int, assets ...string) {
	if !e.authorizes(c, k) {
		return
	}
	e.yields = true
	for _, a := range assets {
		e.unbounded(c, "control", a, 0)
	}
}

// loseAccount charges the wallet's own account being given to a program: what is
// in it can't be sent by the wallet any more.
func (e *effects) loseAccount(c *call, k int) {
	if e.m.ours(c.account(k), e.wallet) && (e.wallet != nil || c.account(k) == 0) {
		e.handOver(c, k, e.native)
	}
}
