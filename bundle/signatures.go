package bundle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/sigild/sigild/credential"
)

// What both files have in common: a head, a body, and the signatures over these.

const maxSignatures = 16

// Signature is one key's over the body.
type Signature struct {
	Key   credential.PublicKey
	Bytes []byte
}

// ErrNotSigned: too few of the keys that count have signed.
var ErrNotSigned = errors.New("the bundle is not signed by enough of the keys that count")

// checkHead refuses what no file can begin with.
func checkHead(appliance, organization string, version uint64) error {
	for _, id := range []string{appliance, organization} {
		if id == "" || len(id) > maxText || strings.IndexFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
			return fmt.Errorf("id %.40q is not 1 to %d printable ASCII characters", id, maxText)
		}
	}
	if version == 0 || version > math.MaxInt64 {
		return fmt.Errorf("version %d is not 1 to 2^63-1", version)
	}
	return nil
}

func putHead(magic, appliance, organization string, of uint64) []byte {
	out := append([]byte(magic), version)
	return binary.BigEndian.AppendUint64(put(put(out, []byte(appliance)), []byte(organization)), of)
}

func put(to, field []byte) []byte {
	return append(binary.BigEndian.AppendUint32(to, uint32(len(field))), field...)
}

// checkSignatures refuses too many, and an order that is not the one.
func checkSignatures(list []Signature) error {
	if len(list) > maxSignatures {
		return fmt.Errorf("%d signatures, at most %d", len(list), maxSignatures)
	}
	for i, s := range list {
		if i > 0 && compareKeys(list[i-1].Key, s.Key) >= 0 {
			return fmt.Errorf("signature %d is out of order, or of a key that signed before", i)
		}
	}
	return nil
}

func compareKeys(a, b credential.PublicKey) int {
	if c := strings.Compare(string(a.Algorithm), string(b.Algorithm)); c != 0 {
		return c
	}
	return bytes.Compare(a.Bytes, b.Bytes)
}

func putSignatures(out []byte, list []Signature) []byte {
	out = binary.BigEndian.AppendUint16(out, uint16(len(list)))
	for _, s := range list {
		out = put(put(put(out, []byte(s.Key.Algorithm)), s.Key.Bytes), s.Bytes)
	}
	return out
}

// sign adds the signer's signature, in place of an earlier one of its key.
func sign(list []Signature, statement []byte, signer credential.Signer) ([]Signature, error) {
	signature, err := signer.Sign(statement)
	if err != nil {
		return nil, err
	}
	key := signer.Public()
	list = slices.DeleteFunc(list, func(s Signature) bool { return s.Key.Equal(key) })
	list = append(list, Signature{key, signature})
	slices.SortFunc(list, func(x, y Signature) int { return compareKeys(x.Key, y.Key) })
	return list, nil
}

// verify demands good signatures of at least quorum of the keys, and none that is wrong
// or of a key that does not count.
func verify(list []Signature, statement []byte, keys []credential.PublicKey, quorum int) ([]credential.PublicKey, error) {
	var signed []credential.PublicKey
	for _, s := range list {
		if !slices.ContainsFunc(keys, s.Key.Equal) {
			return nil, fmt.Errorf("key %s does not count here: %w", s.Key.ID(), ErrNotSigned)
		}
		if err := s.Key.Verify(statement, s.Bytes); err != nil {
			return nil, fmt.Errorf("signature of key %s: %w", s.Key.ID(), err)
		}
		signed = append(signed, s.Key)
	}
	if quorum < 1 || len(signed) < quorum {
		return nil, fmt.Errorf("%d of %d signatures: %w", len(signed), quorum, ErrNotSigned)
	}
	return signed, nil
}

// readHead begins reading a file of the kind that magic names.
func readHead(magic string, data []byte) (*reader, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%d bytes, at most %d", len(data), MaxBytes)
	}
	if len(data) < 5 || string(data[:4]) != magic {
		return nil, errors.New("not a policy bundle")
	}
	if data[4] != version {
		return nil, fmt.Errorf("version %d of the format is not known to this build", data[4])
	}
	return &reader{rest: data[5:]}, nil
}

// reader takes fields off the front; short is set when there were too few bytes.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.short, r.rest = true, nil
		return nil
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *reader) number(bytes int) (n uint64) {
	for _, c := range r.take(uint64(bytes)) {
		n = n<<8 | uint64(c)
	}
	return n
}

func (r *reader) field() []byte { return bytes.Clone(r.take(r.number(4))) }

func (r *reader) signatures() (list []Signature, err error) {
	for n := r.number(2); n > 0 && !r.short; n-- {
		algorithm, public, signature := r.field(), r.field(), r.field()
		if r.short {
			break
		}
		key, err := credential.ParsePublicKey(credential.Algorithm(algorithm), public)
		if err != nil {
			return nil, fmt.Errorf("key of signature %d: %w", len(list), err)
		}
		list = append(list, Signature{key, signature})
	}
	return list, nil
}
