package frost

// What the tests of package frost_test need from inside; they are outside because
// mpctest imports this package.
var (
	DecodeBody = decodeBody
	Identifier = identifier
)
