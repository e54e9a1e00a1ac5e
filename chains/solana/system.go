package solana

// The System program: 13 instructions, a u32 tag. CreateAccountAllowPrefund (13)
// and what may follow is opaque.

const systemTransferTag = "\x02\x00\x00\x00"

var systemSpecs = []spec{
	{name: "createAccount", tag: "\x00\x00\x00\x00",
		accounts: []string{"source", "newAccount"},
		args:     []arg{{"lamports", tLamports}, {"space", tU64}, {"owner", tKey}},
		says:     "create account $newAccount of $space bytes for program $owner with $lamports from $source",
		does: func(e *effects, c *call) {
			e.spendLamports(c, 0, "create", c.number("lamports"), 1)
			e.loseAccount(c, 1)
		}},
	{name: "assign", tag: "\x01\x00\x00\x00",
		accounts: []string{"account"}, args: []arg{{"owner", tKey}},
		says: "give account $account to program $owner",
		does: func(e *effects, c *call) { e.loseAccount(c, 0) }},
	{name: "transfer", tag: systemTransferTag,
		accounts: []string{"source", "destination"}, args: []arg{{"lamports", tLamports}},
		says: "send $lamports from $source to $destination",
		does: func(e *effects, c *call) {
			e.transfers = append(e.transfers, uint8(c.i))
			e.spendLamports(c, 0, "transfer", c.number("lamports"), 1)
		}},
	{name: "createAccountWithSeed", tag: "\x03\x00\x00\x00",
		accounts: []string{"source", "newAccount", "[baseAccount]"},
		args:     []arg{{"base", tKey}, {"seed", tSeed}, {"lamports", tLamports}, {"space", tU64}, {"owner", tKey}},
		says:     "create account $newAccount of $space bytes, derived from $base, for program $owner with $lamports from $source",
		fits: func(c *call) bool {
			base := (*[32]byte)(c.arg("base"))
			if len(c.m.accounts(c.in)) == 3 {
				return c.is(2, base)
			}
			return c.is(0, base)
		},
		does: func(e *effects, c *call) { e.spendLamports(c, 0, "create", c.number("lamports"), 1) }},
	{name: "advanceNonce", tag: "\x04\x00\x00\x00",
		accounts: []string{"nonceAccount", "recentBlockhashesSysvar", "nonceAuthority"},
		says:     "advance the nonce of $nonceAccount",
		fits: func(c *call) bool {
			return c.m.key(c.account(0)) != nil && c.m.isWritable(c.account(0)) && c.is(1, &recentBlockhashes) && c.m.isSigner(c.account(2))
		}},
	{name: "withdrawFromNonce", tag: "\x05\x00\x00\x00",
		accounts: []string{"nonceAccount", "destination", "recentBlockhashesSysvar", "rentSysvar", "nonceAuthority"},
		args:     []arg{{"lamports", tLamports}},
		says:     "withdraw $lamports from nonce account $nonceAccount to $destination",
		does: func(e *effects, c *call) {
			if !c.m.ours(c.account(1), e.wallet) {
				e.spendLamports(c, 4, "transfer", c.number("lamports"), 1)
			}
		}},
	{name: "initializeNonce", tag: "\x06\x00\x00\x00",
		accounts: []string{"nonceAccount", "recentBlockhashesSysvar", "rentSysvar"}, args: []arg{{"nonceAuthority", tKey}},
		says: "make $nonceAccount a nonce account of $nonceAuthority"},
	{name: "authorizeNonce", tag: "\x07\x00\x00\x00",
		accounts: []string{"nonceAccount", "nonceAuthority"}, args: []arg{{"newAuthorized", tKey}},
		says: "give nonce account $nonceAccount of $nonceAuthority to $newAuthorized",
		does: func(e *effects, c *call) { e.handOver(c, 1, e.sol()) }},
	{name: "allocate", tag: "\x08\x00\x00\x00",
		accounts: []string{"account"}, args: []arg{{"space", tU64}},
		says: "allocate $space bytes in account $account",
		does: func(e *effects, c *call) { e.loseAccount(c, 0) }},
	{name: "allocateWithSeed", tag: "\x09\x00\x00\x00",
		accounts: []string{"account", "baseAccount"},
		args:     []arg{{"base", tKey}, {"seed", tSeed}, {"space", tU64}, {"owner", tKey}},
		says:     "allocate $space bytes in account $account, derived from $base, for program $owner",
		fits:     func(c *call) bool { return c.is(1, (*[32]byte)(c.arg("base"))) },
		does:     func(e *effects, c *call) { e.handOver(c, 1, e.sol()) }},
	{name: "assignWithSeed", tag: "\x0a\x00\x00\x00",
		accounts: []string{"account", "baseAccount"},
		args:     []arg{{"base", tKey}, {"seed", tSeed}, {"owner", tKey}},
		says:     "give account $account, derived from $base, to program $owner",
		fits:     func(c *call) bool { return c.is(1, (*[32]byte)(c.arg("base"))) },
		does:     func(e *effects, c *call) { e.handOver(c, 1, e.sol()) }},
	{name: "transferWithSeed", tag: "\x0b\x00\x00\x00",
		accounts: []string{"source", "sourceBase", "destination"},
		args:     []arg{{"lamports", tLamports}, {"sourceSeed", tSeed}, {"sourceOwner", tKey}},
		says:     "send $lamports from $source, derived from $sourceBase, to $destination",
		does: func(e *effects, c *call) {
			e.transfers = append(e.transfers, uint8(c.i))
			e.spendLamports(c, 1, "transfer", c.number("lamports"), 2)
		}},
	{name: "upgradeNonce", tag: "\x0c\x00\x00\x00",
		accounts: []string{"nonceAccount"}, says: "upgrade nonce account $nonceAccount"},
}
