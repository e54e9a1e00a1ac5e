package solana

// The Token program and Token-2022, a u8 tag. Since May 2026 the Token program is
// p-token under the same address; what it adds (batch 255, withdrawExcessLamports
// 38, unwrapLamports 45) is opaque, as are the extensions of Token-2022 but for
// transferCheckedWithFee. A transfer hook needs accounts of its own, which makes
// its transfer opaque.

// rentOfTokenAccount is what a new account of the Token program (165 bytes) costs,
// in lamports: (128 + 165) * 3480 * 2.
const rentOfTokenAccount = 2_039_280

var tokenSpecs = []spec{
	{name: "initializeMint", tag: "\x00", accounts: []string{"mint", "rentSysvar"},
		args: []arg{{"decimals", tDecimals}, {"mintAuthority", tKey}, {"freezeAuthority", tMaybeKey}},
		says: "make $mint a token, minted by $mintAuthority, frozen by $freezeAuthority"},
	{name: "initializeAccount", tag: "\x01", accounts: []string{"account", "mint", "owner", "rentSysvar"},
		says: "make $account an account of $owner for token $mint"},
	{name: "initializeMultisig", tag: "\x02", accounts: []string{"multisig", "rentSysvar"}, others: true,
		args: []arg{{"m", tU8}}, says: "make $multisig a multisig that $m must sign"},
	{name: "transfer", tag: "\x03", accounts: []string{"source", "destination", "authority"}, signers: true,
		args: []arg{{"amount", tUnits}}, says: "send $amount of the token of account $source of $authority to account $destination",
		does: func(e *effects, c *call) { e.sendToken(c, anyToken, 1) }},
	{name: "approve", tag: "\x04", accounts: []string{"source", "delegate", "owner"}, signers: true,
		args: []arg{{"amount", tUnits}}, says: "let $delegate spend $amount of the token of account $source of $owner",
		does: func(e *effects, c *call) { e.approve(c, anyToken, 1) }},
	{name: "revoke", tag: "\x05", accounts: []string{"source", "owner"}, signers: true,
		says: "let nobody but $owner spend from account $source"},
	{name: "setAuthority", tag: "\x06", accounts: []string{"account", "authority"}, signers: true,
		args: []arg{{"authorityType", tTokenAuthority}, {"newAuthority", tMaybeKey}},
		says: "make $newAuthority the $authorityType authority of $account in place of $authority",
		does: func(e *effects, c *call) { e.handOver(c, 1, e.sol(), e.token(c, anyToken)) }},
	{name: "mintTo", tag: "\x07", accounts: []string{"mint", "account", "mintAuthority"}, signers: true,
		args: []arg{{"amount", tUnits}}, says: "mint $amount of token $mint to account $account",
		does: func(e *effects, c *call) { e.spendToken(c, 2, "mint", 0, 1) }},
	{name: "burn", tag: "\x08", accounts: []string{"account", "mint", "authority"}, signers: true,
		args: []arg{{"amount", tUnits}}, says: "burn $amount of token $mint in account $account of $authority",
		does: func(e *effects, c *call) { e.spendToken(c, 2, "burn", 1, 0) }},
	{name: "closeAccount", tag: "\x09", accounts: []string{"account", "destination", "owner"}, signers: true,
		says: "close account $account of $owner and send what is in it to $destination",
		does: func(e *effects, c *call) {
			if !c.m.ours(c.account(1), e.wallet) {
				e.handOver(c, 2, e.sol(), e.token(c, anyToken))
			}
		}},
	{name: "freezeAccount", tag: "\x0a", accounts: []string{"account", "mint", "freezeAuthority"}, signers: true,
		says: "freeze account $account of token $mint"},
	{name: "thawAccount", tag: "\x0b", accounts: []string{"account", "mint", "freezeAuthority"}, signers: true,
		says: "thaw account $account of token $mint"},
	{name: "transferChecked", tag: "\x0c", accounts: []string{"source", "mint", "destination", "authority"}, signers: true,
		args: []arg{{"amount", tUnits}, {"decimals", tDecimals}}, says: "send $amount of token $mint from account $source of $authority to account $destination",
		does: func(e *effects, c *call) { e.sendToken(c, 1, 2) }},
	{name: "approveChecked", tag: "\x0d", accounts: []string{"source", "mint", "delegate", "owner"}, signers: true,
		args: []arg{{"amount", tUnits}, {"decimals", tDecimals}}, says: "let $delegate spend $amount of token $mint from account $source of $owner",
		does: func(e *effects, c *call) { e.approve(c, 1, 2) }},
	{name: "mintToChecked", tag: "\x0e", accounts: []string{"mint", "account", "mintAuthority"}, signers: true,
		args: []arg{{"amount", tUnits}, {"decimals", tDecimals}}, says: "mint $amount of token $mint to account $account",
		does: func(e *effects, c *call) { e.spendToken(c, 2, "mint", 0, 1) }},
	{name: "burnChecked", tag: "\x0f", accounts: []string{"account", "mint", "authority"}, signers: true,
		args: []arg{{"amount", tUnits}, {"decimals", tDecimals}}, says: "burn $amount of token $mint in account $account of $authority",
		does: func(e *effects, c *call) { e.spendToken(c, 2, "burn", 1, 0) }},
	{name: "initializeAccount2", tag: "\x10", accounts: []string{"account", "mint", "rentSysvar"}, args: []arg{{"owner", tKey}},
		says: "make $account an account of $owner for token $mint"},
	{name: "syncNative", tag: "\x11", accounts: []string{"account"}, says: "count the SOL in account $account"},
	{name: "initializeAccount3", tag: "\x12", accounts: []string{"account", "mint"}, args: []arg{{"owner", tKey}},
		says: "make $account an account of $owner for token $mint"},
	{name: "initializeMultisig2", tag: "\x13", accounts: []string{"multisig"}, others: true,
		args: []arg{{"m", tU8}}, says: "make $multisig a multisig that $m must sign"},
	{name: "initializeMint2", tag: "\x14", accounts: []string{"mint"},
		args: []arg{{"decimals", tDecimals}, {"mintAuthority", tKey}, {"freezeAuthority", tMaybeKey}},
		says: "make $mint a token, minted by $mintAuthority, frozen by $freezeAuthority"},
	{name: "getAccountDataSize", tag: "\x15", accounts: []string{"mint"}, says: "ask for the size of accounts of token $mint"},
	{name: "initializeImmutableOwner", tag: "\x16", accounts: []string{"account"}, says: "fix the owner of account $account"},
	{name: "amountToUiAmount", tag: "\x17", accounts: []string{"mint"}, args: []arg{{"amount", tUnits}},
		says: "ask how $amount of token $mint is written"},
	{name: "uiAmountToAmount", tag: "\x18", accounts: []string{"mint"}, args: []arg{{"uiAmount", tText}},
		says: "ask how much $uiAmount of token $mint is"},
}

var token2022Specs = []spec{
	{name: "initializeMintCloseAuthority", tag: "\x19", accounts: []string{"mint"}, args: []arg{{"newAuthority", tMaybeKey}},
		says: "let $newAuthority close token $mint"},
	{name: "transferCheckedWithFee", tag: "\x1a\x01", accounts: []string{"source", "mint", "destination", "authority"}, signers: true,
		args: []arg{{"amount", tUnits}, {"decimals", tDecimals}, {"feeAmount", tUnits}},
		says: "send $amount of token $mint from account $source of $authority to account $destination, less the token's own fee of $feeAmount",
		does: func(e *effects, c *call) { e.sendToken(c, 1, 2) }},
}

// associatedSpecs: the program makes the account at the address that follows from
// wallet, token program and mint, or fails.
var associatedSpecs = []spec{
	{name: "create", tag: "\x00", accounts: associatedAccounts, says: "create the token account $account of $wallet for token $mint, paid by $source",
		fits: createsAssociated, does: paysAssociated},
	{name: "createIdempotent", tag: "\x01", accounts: associatedAccounts, says: "create, unless it exists, the token account $account of $wallet for token $mint, paid by $source",
		fits: createsAssociated, does: paysAssociated},
	{name: "recoverNested", tag: "\x02",
		accounts: []string{"nestedSource", "nestedMint", "destination", "nestedOwner", "ownerMint", "wallet", "tokenProgram"},
		says:     "move all of token $nestedMint from the nested account $nestedSource to account $destination of $wallet",
		fits:     func(c *call) bool { return isTokenProgram(c, 6) }},
}

// associatedCreate is Create in its older form, without data.
var associatedCreate = func() *spec {
	s := associatedSpecs[0]
	s.tag = ""
	s.prepare()
	return &s
}()

var associatedAccounts = []string{"source", "account", "wallet", "mint", "systemProgram", "tokenProgram", "[rentSysvar]"}

// createsAssociated: the program would call whatever stands in these places.
func createsAssociated(c *call) bool {
	return c.is(4, &systemProgram) && isTokenProgram(c, 5) && (c.in.naccounts == 6 || c.is(6, &rentSysvar))
}

func isTokenProgram(c *call, k int) bool { return c.is(k, &tokenProgram) || c.is(k, &token2022Program) }

// paysAssociated charges the rent. How large an account of Token-2022 becomes
// depends on the extensions of its mint, which a message does not say.
func paysAssociated(e *effects, c *call) {
	if c.is(5, &tokenProgram) {
		e.spendLamports(c, 0, "create", rentOfTokenAccount, 1)
		return
	}
	if c.m.ours(c.account(0), e.wallet) {
		e.unbounded(c, "create", e.sol(), 1)
	}
}
