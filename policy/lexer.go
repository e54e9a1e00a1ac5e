package policy

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The lexer cuts a clause into tokens. Outside of string literals only ASCII is
// read; a string literal runs from ' to the next ' and knows no escapes.

// MaxTextBytes bounds the text of one clause.
const MaxTextBytes = 16 << 10

type tokenKind uint8

const (
	tokEnd tokenKind = iota
	tokInt
	tokHexInt
	tokString
	tokName
	tokOp
)

type token struct {
	kind tokenKind
	// text is the operator, the name, the digits, or what stands between the quotes.
	text     string
	pos, end int
}

// textError stops lexing or parsing; there is one to a clause.
type textError struct {
	code       string
	pos        int
	message    string
	suggestion string
}

// operators, longest first.
var operators = [...]string{"&&", "||", "==", "!=", "<=", ">=", "..", "<", ">", "!", "(", ")", "[", "]", ",", ".", "-"}

func lex(src string) ([]token, *textError) {
	if len(src) > MaxTextBytes {
		return nil, &textError{code: CodeTooLong, pos: MaxTextBytes, message: "the text is longer than 16384 bytes"}
	}
	if strings.HasPrefix(src, "\uFEFF") {
		return nil, &textError{code: CodeEncoding, message: "the text starts with a byte order mark"}
	}
	toks := make([]token, 0, 8+len(src)/6)
	for i := 0; i < len(src); {
		c := src[i]
		switch {
		case c == ' ' || c == '\n' || c == '\t' || c == '\r':
			i++
		case c == '\'':
			end, err := stringEnd(src, i)
			if err != nil {
				return nil, err
			}
			toks = append(toks, token{tokString, src[i+1 : end-1], i, end})
			i = end
		case isDigit(c):
			t, err := lexNumber(src, i)
			if err != nil {
				return nil, err
			}
			toks = append(toks, t)
			i = t.end
		case isLetter(c):
			end := i + 1
			for end < len(src) && (isLetter(src[end]) || isDigit(src[end])) {
				end++
			}
			toks = append(toks, token{tokName, src[i:end], i, end})
			i = end
		default:
			if p := placeholderAt(src[i:]); p != "" {
				return nil, placeholderError(p, i)
			}
			op := operatorAt(src[i:])
			if op == "" {
				return nil, unexpectedByte(src, i)
			}
			toks = append(toks, token{tokOp, op, i, i + len(op)})
			i += len(op)
		}
	}
	return append(toks, token{kind: tokEnd, pos: len(src), end: len(src)}), nil
}

// stringEnd returns the offset after the closing quote of the literal at i.
func stringEnd(src string, i int) (int, *textError) {
	for j := i + 1; j < len(src); {
		if src[j] == '\'' {
			if body := src[i+1 : j]; placeholderAt(body) == body && body != "" {
				return 0, placeholderError(body, i)
			}
			return j + 1, nil
		}
		r, n := utf8.DecodeRuneInString(src[j:])
		if r == utf8.RuneError && n == 1 {
			return 0, &textError{code: CodeEncoding, pos: j, message: "not UTF-8"}
		}
		if !unicode.IsPrint(r) {
			return 0, &textError{code: CodeEncoding, pos: j, message: "control and formatting characters are not allowed in a string"}
		}
		j += n
	}
	return 0, &textError{code: CodeSyntax, pos: i, message: "the string has no closing quote"}
}

func lexNumber(src string, i int) (token, *textError) {
	end := i
	kind, digit := tokInt, isDigit
	if strings.HasPrefix(src[i:], "0x") {
		kind, digit, end = tokHexInt, isHexDigit, i+2
	}
	start := end
	for end < len(src) && digit(src[end]) {
		end++
	}
	bad := func(pos int, message string) (token, *textError) {
		return token{}, &textError{code: CodeNumber, pos: pos, message: message}
	}
	switch {
	case end == start || end < len(src) && isLetter(src[end]):
		return bad(i, "a number is written in decimal digits only")
	case kind == tokInt && end-start > 1 && src[start] == '0':
		return bad(i, "a number must not start with 0")
	case end+1 < len(src) && src[end] == '.' && isDigit(src[end+1]):
		return bad(end, "numbers are whole; amounts are in the smallest unit")
	}
	return token{kind, src[start:end], i, end}, nil
}

// placeholderAt returns the <LIKE_THIS> that s starts with, or "". Comparisons do
// not chain, so no correct text has one.
func placeholderAt(s string) string {
	if len(s) < 3 || s[0] != '<' || s[1] < 'A' || s[1] > 'Z' {
		return ""
	}
	for j := 2; j < len(s) && j < 64; j++ {
		c := s[j]
		switch {
		case c == '>':
			return s[:j+1]
		case c >= 'A' && c <= 'Z' || isDigit(c) || c == '_' || c == '-' || c == ' ':
		default:
			return ""
		}
	}
	return ""
}

func placeholderError(p string, pos int) *textError {
	return &textError{code: CodePlaceholder, pos: pos, message: "the placeholder " + p + " was not filled in"}
}

func operatorAt(s string) string {
	for _, op := range operators {
		if strings.HasPrefix(s, op) {
			return op
		}
	}
	return ""
}

func unexpectedByte(src string, i int) *textError {
	r, n := utf8.DecodeRuneInString(src[i:])
	e := &textError{code: CodeSyntax, pos: i}
	switch {
	case r == utf8.RuneError && n == 1:
		e.code, e.message = CodeEncoding, "not UTF-8"
	case r > '~' || r < ' ':
		e.code, e.message = CodeEncoding, "only printable ASCII is allowed outside of strings"
	case r == '"':
		e.message, e.suggestion = "unexpected character '\"'", "strings stand between single quotes"
	case r == '&' || r == '|' || r == '=':
		e.message, e.suggestion = "unexpected character '"+string(r)+"'", "did you mean "+string(r)+string(r)+"?"
	case strings.ContainsRune("+*/%", r):
		e.message = "the language has no arithmetic"
	default:
		e.message = "unexpected character '" + string(r) + "'"
	}
	return e
}

func isDigit(c byte) bool    { return c >= '0' && c <= '9' }
func isHexDigit(c byte) bool { return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }
func isLetter(c byte) bool   { return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
