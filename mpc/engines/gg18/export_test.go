package gg18

// What the tests of package gg18_test need from inside; they are outside because
// mpctest imports this package.
var (
	DecodeECDSA = decodeECDSA
	DecodeEdDSA = decodeEdDSA
	PartyKey    = partyKey
	NewRoster   = newRoster
)
