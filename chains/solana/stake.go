package solana

// The Stake program: its first eight instructions, a u32 tag. The "checked" and
// "with seed" forms and what moves stake between accounts are opaque.

var stakeSpecs = []spec{
	{name: "initialize", tag: "\x00\x00\x00\x00",
		accounts: []string{"stakeAccount", "rentSysvar"},
		args: []arg{{"staker", tKey}, {"withdrawer", tKey},
			{"unixTimestamp", tI64}, {"epoch", tU64}, {"custodian", tKey}},
		says: "make $stakeAccount a stake account, staker $staker, withdrawer $withdrawer, locked until time $unixTimestamp and epoch $epoch but for custodian $custodian"},
	{name: "authorize", tag: "\x01\x00\x00\x00",
		accounts: []string{"stakeAccount", "clockSysvar", "authority", "[custodian]"},
		args:     []arg{{"newAuthority", tKey}, {"authorityType", tStakeAuthority}},
		says:     "make $newAuthority the $authorityType of stake account $stakeAccount in place of $authority",
		does:     func(e *effects, c *call) { e.handOver(c, 2, e.sol()) }},
	{name: "delegate", tag: "\x02\x00\x00\x00",
		accounts: []string{"stakeAccount", "voteAccount", "clockSysvar", "stakeHistorySysvar", "stakeConfigAccount", "stakeAuthority"},
		says:     "delegate stake account $stakeAccount of $stakeAuthority to $voteAccount"},
	{name: "split", tag: "\x03\x00\x00\x00",
		accounts: []string{"stakeAccount", "newSplitAccount", "stakeAuthority"}, args: []arg{{"lamports", tLamports}},
		says: "split $lamports off stake account $stakeAccount into $newSplitAccount"},
	{name: "withdraw", tag: "\x04\x00\x00\x00",
		accounts: []string{"stakeAccount", "destination", "clockSysvar", "stakeHistorySysvar", "withdrawAuthority", "[custodian]"},
		args:     []arg{{"lamports", tLamports}},
		says:     "withdraw $lamports from stake account $stakeAccount to $destination",
		does: func(e *effects, c *call) {
			if !c.m.ours(c.account(1), e.wallet) {
				e.spendLamports(c, 4, "transfer", c.number("lamports"), 1)
			}
		}},
	{name: "deactivate", tag: "\x05\x00\x00\x00",
		accounts: []string{"stakeAccount", "clockSysvar", "stakeAuthority"},
		says:     "deactivate stake account $stakeAccount"},
	{name: "setLockup", tag: "\x06\x00\x00\x00",
		accounts: []string{"stakeAccount", "custodian"},
		args:     []arg{{"unixTimestamp", tMaybeI64}, {"epoch", tMaybeU64}, {"newCustodian", tMaybeKey}},
		says:     "lock stake account $stakeAccount until time $unixTimestamp and epoch $epoch, new custodian $newCustodian",
		does:     func(e *effects, c *call) { e.handOver(c, 1, e.sol()) }},
	{name: "merge", tag: "\x07\x00\x00\x00",
		accounts: []string{"destination", "source", "clockSysvar", "stakeHistorySysvar", "stakeAuthority"},
		says:     "merge stake account $source into $destination"},
}
