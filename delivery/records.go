package delivery

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"github.com/sigild/sigild/seal"
)

// This file holds what is written into the vault: one JSON object a record, with
// a version first, decoded strictly. None of these types holds a secret: webhook
// secrets, shares and API keys are records of their own, their bytes and no more.

const recordVersion = 1

// webhook is the record of type vault.TypeWebhook; its id is ID.
type webhook struct {
	V            int       `json:"v"`
	ID           string    `json:"id"`
	Organization string    `json:"organization"`
	Environment  string    `json:"environment"`
	CreatedAt    time.Time `json:"created_at"`
	// Secrets are the ids of live records of type vault.TypeWebhookSecret.
	Secrets []string `json:"secrets"`
	// Keys are live; the newest is first and is tried first.
	Keys []decryptionKey `json:"keys"`
	// Token is the id of the record of type vault.TypeWebhookSecret that holds the
	// environment's developer token; "" for none.
	Token string `json:"token,omitempty"`
}

type decryptionKey struct {
	// Provider is the device that holds the key.
	Provider string      `json:"provider"`
	Ref      seal.KeyRef `json:"ref"`
	// Public is SubjectPublicKeyInfo in DER.
	Public []byte `json:"public"`
	// Imported: it was once outside the device.
	Imported bool `json:"imported"`
}

// vendorWallet is the record of type vault.TypeVendorWallet: everything that was
// delivered and revoked for one wallet of a vendor. Its id is key().
type vendorWallet struct {
	V       int    `json:"v"`
	Webhook string `json:"webhook"`
	Wallet  string `json:"wallet"`
	// Revoked has the time of the youngest revocation of each share set, for ever;
	// "" stands for all of them.
	Revoked map[string]time.Time `json:"revoked,omitempty"`
	// Sets has what was delivered last for each share set; "" is one without a name.
	Sets map[string]material `json:"sets,omitempty"`
	// Beside has what was delivered since for a set that is bound: it takes the bound
	// one's place when a signature made with it has verified, and not before.
	Beside map[string]material `json:"beside,omitempty"`
}

func (w *vendorWallet) key() string { return walletKey(w.Webhook, w.Wallet) }

// walletKey names the wallet of a webhook. A webhook has one organization and one
// environment; neither part can hold a slash.
func walletKey(webhook, wallet string) string { return webhook + "/" + wallet }

// clone may be changed; w may not.
func (w *vendorWallet) clone() *vendorWallet {
	c := *w
	c.Revoked, c.Sets, c.Beside = maps.Clone(w.Revoked), maps.Clone(w.Sets), maps.Clone(w.Beside)
	if c.Revoked == nil {
		c.Revoked = map[string]time.Time{}
	}
	if c.Sets == nil {
		c.Sets = map[string]material{}
	}
	if c.Beside == nil {
		c.Beside = map[string]material{}
	}
	return &c
}

// Status of what was delivered.
type Status string

// The statuses.
const (
	Pending Status = "pending" // share and API key are sealed and wait, with no policy and no caller
	Bound   Status = "bound"   // a delegation signs with them
	Frozen  Status = "frozen"  // what was signed with them did not verify; nothing signs with them any more
	Revoked Status = "revoked" // they are destroyed
)

// material is what one created event brought. Share and API key are the records
// of types vault.TypeVendorShare and vault.TypeVendorAPIKey under its record().
type material struct {
	ID      string    `json:"id"`
	Status  Status    `json:"status"`
	Chain   string    `json:"chain"`
	Address string    `json:"address,omitempty"`
	User    string    `json:"user,omitempty"`
	Event   string    `json:"event"`
	At      time.Time `json:"at"` // the event's own timestamp
	TakenAt time.Time `json:"taken_at"`
	// Kid is the vendor's name of the key that the share came encrypted to, "" for none.
	Kid string `json:"kid,omitempty"`
	// Whole says that the records' ids bind all of the above (record).
	Whole bool `json:"whole,omitempty"`
	// Delegation signs with it; "" unless bound or frozen.
	Delegation string `json:"delegation,omitempty"`
	// Proven: a signature made with it verified against the wallet's address.
	Proven bool `json:"proven,omitempty"`
}

// record is the id of the records of a material: its own id and SHA-256 of what it
// is for. A record's id is in the authenticated data of its envelope
// (docs/formats.md), so share and API key open only as what they were delivered as.
func (w *vendorWallet) record(environment, set string, m material) string {
	if !m.Whole {
		return m.ID // of a build before this one
	}
	h := sha256.New()
	for _, text := range []string{"sigild/vendor-share/v1", environment, w.Webhook, w.Wallet, set, m.Chain, m.Address, m.Kid, m.Event} {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(text)))
		h.Write(length[:])
		h.Write([]byte(text))
	}
	return m.ID + "/" + hex.EncodeToString(h.Sum(nil))
}

// vendorEvent is a record of type vault.TypeVendorEvent. It remembers an event for
// ever, and under the id of its message that there was one.
type vendorEvent struct {
	V       int       `json:"v"`
	TakenAt time.Time `json:"taken_at"`
	// Outcomes are those that were journaled; see Service.take.
	Outcomes []Outcome `json:"outcomes"`
}

func (e *vendorEvent) had(o Outcome) bool { return e != nil && slices.Contains(e.Outcomes, o) }
