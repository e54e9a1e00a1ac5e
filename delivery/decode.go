package delivery

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sigild/sigild/refusal"
)

// MaxBody is the longest body that is taken, in bytes. The vendor's own client
// sends at most 4096 characters a ciphertext.
const MaxBody = 64 << 10

const (
	maxDepth     = 16
	maxFieldText = 256
)

// The events that mean something here; every other one is ignored.
const (
	eventCreated = "wallet.delegation.created"
	eventRevoked = "wallet.delegation.revoked"
)

// event is a delivery as we understand it.
type event struct {
	name string
	// id names the event; for an ignored one without a usable id it is made of the body.
	id, message string
	environment string // "" when the event doesn't say
	at          time.Time

	// The rest belongs to created and revoked.
	wallet, set   string // set "": none was named
	chain         string
	address, user string
	share, apiKey envelope // of created

	// ended are the delegations that taking a revocation in has ended.
	ended []string
}

// malformed is a body that the vendor sent and we can't take.
func malformed(field, format string, args ...any) *refusal.Error {
	return refusal.New(refusal.RequestInvalid, "reading the delivery: "+format, args...).With("field", field)
}

// readEvent decodes a body. Members it doesn't know are let through, since the
// vendor adds some; a member that comes twice is not, since two readers could
// take it for two things. It quotes nothing of the body in its errors.
func readEvent(body []byte) (*event, error) {
	root, err := parseJSON(body)
	if err != nil {
		return nil, malformed("body", "%v", err)
	}
	if root.members == nil {
		return nil, malformed("body", "it is no JSON object")
	}
	e := &event{}
	if e.name, err = root.text("eventName", true); err != nil {
		return nil, err
	}
	if e.name != eventCreated && e.name != eventRevoked {
		return ignoredEvent(root, e), nil
	}
	if err := e.readEnvelope(root); err != nil {
		return nil, err
	}
	data := root.members["data"]
	if data == nil || data.members == nil {
		return nil, malformed("data", "there is no data object")
	}
	return e, e.readData(data)
}

// ignoredEvent takes what identifies an event that we don't act on.
func ignoredEvent(root *value, e *event) *event {
	if !goodVendorID(e.name) {
		e.name = "other"
	}
	if id, err := root.text("eventId", false); err == nil && goodVendorID(id) {
		e.id = id
	}
	if env, err := root.text("environmentId", false); err == nil && goodVendorID(env) {
		e.environment = env
	}
	return e
}

// readEnvelope reads the members around data.
func (e *event) readEnvelope(root *value) error {
	var err error
	created := e.name == eventCreated
	if e.id, err = root.vendorID("eventId", true); err != nil {
		return err
	}
	if e.message, err = root.vendorID("messageId", created); err != nil {
		return err
	}
	if e.environment, err = root.vendorID("environmentId", created); err != nil {
		return err
	}
	at, err := root.text("timestamp", true)
	if err != nil {
		return err
	}
	if e.at, err = time.Parse(time.RFC3339Nano, at); err != nil {
		return malformed("timestamp", "timestamp is no time of RFC 3339")
	}
	e.at = e.at.UTC()
	return nil
}

// readData reads the members of data. Pages of the vendor's documentation and
// its SDKs name the envelopes differently; exactly one name may be used.
func (e *event) readData(data *value) error {
	var err error
	created := e.name == eventCreated
	if e.wallet, err = data.vendorID("walletId", true); err != nil {
		return err
	}
	if e.set, err = data.vendorID("shareSetId", false); err != nil {
		return err
	}
	if e.chain, err = data.vendorID("chain", created); err != nil {
		return err
	}
	if e.user, err = data.vendorID("userId", false); err != nil {
		return err
	}
	if e.address, err = data.vendorID("publicKey", false); err != nil { // the wallet's address, despite its name
		return err
	}
	if !created {
		return nil
	}
	share, err := data.one("encryptedDelegatedShare", "encryptedDelegatedKeyShare", "encryptedShare", "encryptedKeyShare")
	if err != nil {
		return err
	}
	if e.share, err = readEnvelope("encryptedDelegatedShare", share); err != nil {
		return err
	}
	apiKey, err := data.one("encryptedWalletApiKey", "encryptedApiKey")
	if err != nil {
		return err
	}
	e.apiKey, err = readEnvelope("encryptedWalletApiKey", apiKey)
	return err
}

// value is one JSON value: an object has members, a string isText, everything
// else is neither.
type value struct {
	members map[string]*value
	isText  bool
	isNull  bool
	string  string
}

// parseJSON reads one JSON value and nothing after it.
func parseJSON(body []byte) (*value, error) {
	if len(body) > MaxBody {
		return nil, errors.New("it is too large")
	}
	if !utf8.Valid(body) {
		return nil, errors.New("it is not UTF-8")
	}
	if !json.Valid(body) {
		return nil, errNotJSON
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	v, err := parseValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON value")
	}
	return v, nil
}

var errNotJSON = errors.New("it is not JSON") // the decoder's own words quote the body

func parseValue(d *json.Decoder, depth int) (*value, error) {
	if depth > maxDepth {
		return nil, errors.New("it nests too deeply")
	}
	token, err := d.Token()
	if err != nil {
		return nil, errNotJSON
	}
	switch t := token.(type) {
	case nil:
		return &value{isNull: true}, nil
	case string:
		return &value{isText: true, string: t}, nil
	case json.Delim:
		v := &value{}
		if t == '{' {
			v.members = map[string]*value{}
		}
		for d.More() {
			name := ""
			if t == '{' {
				key, err := d.Token()
				if err != nil {
					return nil, errNotJSON
				}
				name = key.(string)
				if v.members[name] != nil {
					return nil, errors.New("a member comes twice")
				}
			}
			inner, err := parseValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			if t == '{' {
				v.members[name] = inner
			}
		}
		if _, err := d.Token(); err != nil {
			return nil, errNotJSON
		}
		return v, nil
	}
	return &value{}, nil
}

// text is a member that is a string; an optional one may also be null.
func (v *value) text(name string, needed bool) (string, error) {
	m := v.members[name]
	if m == nil || m.isNull {
		if needed {
			return "", malformed(name, "%s is missing", name)
		}
		return "", nil
	}
	if !m.isText {
		return "", malformed(name, "%s is no string", name)
	}
	if len(m.string) > maxFieldText {
		return "", malformed(name, "%s has more than %d bytes", name, maxFieldText)
	}
	return m.string, nil
}

// vendorID is a member that is a name of the vendor's. An optional one is absent,
// null, or good; an empty one is not good, it could stand for anything.
func (v *value) vendorID(name string, needed bool) (string, error) {
	text, err := v.text(name, needed)
	if err != nil {
		return "", err
	}
	if m := v.members[name]; (m == nil || m.isNull) && !needed {
		return "", nil
	}
	if !goodVendorID(text) {
		return "", malformed(name, "%s must have 1 to %d characters of [A-Za-z0-9._:-]", name, maxVendorID)
	}
	return text, nil
}

// one is the only member that goes by any of these names.
func (v *value) one(names ...string) (*value, error) {
	var found *value
	for _, name := range names {
		if m := v.members[name]; m != nil {
			if found != nil {
				return nil, malformed(names[0], "%s is there under two names", names[0])
			}
			found = m
		}
	}
	if found == nil {
		return nil, malformed(names[0], "there is none of %s", strings.Join(names, ", "))
	}
	return found, nil
}
