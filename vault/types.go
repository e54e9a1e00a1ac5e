package vault

import "fmt"

// Type says what a record is. It is part of every record's key and envelope, so
// a record of one type can't be passed off as another. The numbers are on disk
// for ever: a new type gets the next number, none is reused.
type Type uint16

// The closed list of types.
const (
	TypeAppliance    Type = 1  // the appliance's own identity
	TypeOperator     Type = 2  // an operator and their credentials
	TypeOrganization Type = 3  // an organization and its root quorum
	TypeUser         Type = 4  // an end user or delegated user
	TypeKey          Type = 5  // a key: scheme, owner, custody, status
	TypeWallet       Type = 6  // a wallet: key, chain family, address
	TypeShare        Type = 7  // one party's secret share
	TypeShareSet     Type = 8  // the public description of a share set
	TypeDelegation   Type = 9  // who may act for whom
	TypeDocument     Type = 10 // what an organization's policy authority set: rules, later interfaces
	TypeLimit        Type = 11 // a limit
	TypeOutbox       Type = 12 // a ciphertext that waits for its receipt
	TypePreParams    Type = 13 // unused key-generation parameters
	TypeCeremony     Type = 14 // a ceremony under way
	TypeStoreKey     Type = 15 // the Ed25519 key that signs root-key generations; the vault's own
	TypeAPIKey       Type = 16 // the verifier of a wallet API key
	TypeAnswer       Type = 17 // a stored answer

	TypeWebhook       Type = 18 // an endpoint that another service delivers to: keys, names
	TypeWebhookSecret Type = 19 // a secret that its deliveries are authenticated with
	TypeVendorWallet  Type = 20 // what was delivered and revoked for one wallet of a vendor
	TypeVendorEvent   Type = 21 // an event or message that was taken in
	TypeVendorShare   Type = 22 // a delivered share, byte for byte
	TypeVendorAPIKey  Type = 23 // a delivered wallet API key, byte for byte

	TypeLastingKey Type = 24 // the key that outlives root keys; the vault's own
	TypeJournal    Type = 25 // a piece of the journal's snapshot
	TypeOrder      Type = 26 // a policy that a delegated user made of a template
	TypeActivity   Type = 27 // a request that waits, or waited, for people's approval
	TypePartKey    Type = 28 // a device's key for parts of records' keys; the vault's own
	TypeClock      Type = 29 // when the wall clock was last confirmed

	TypeEndpoint       Type = 30 // where events are delivered to
	TypeEndpointSecret Type = 31 // what events to an endpoint are authenticated with
	TypeOutgoing       Type = 32 // an event that waits to be delivered: ciphertext
	TypeDevice         Type = 33 // a user's device, known by its key

	TypeVendorCredential Type = 34 // the public side of a key that another service knows us by
	TypeVendorKey        Type = 35 // such a key
)

var typeNames = [...]string{
	TypeAppliance: "appliance", TypeOperator: "operator", TypeOrganization: "organization",
	TypeUser: "user", TypeKey: "key", TypeWallet: "wallet", TypeShare: "share",
	TypeShareSet: "share set", TypeDelegation: "delegation", TypeDocument: "document",
	TypeLimit: "limit", TypeOutbox: "outbox", TypePreParams: "pre-parameters",
	TypeCeremony: "ceremony", TypeStoreKey: "store key", TypeAPIKey: "api key", TypeAnswer: "answer",
	TypeWebhook: "webhook", TypeWebhookSecret: "webhook secret", TypeVendorWallet: "vendor wallet",
	TypeVendorEvent: "vendor event", TypeVendorShare: "vendor share", TypeVendorAPIKey: "vendor api key",
	TypeLastingKey: "lasting key", TypeJournal: "journal snapshot",
	TypeOrder: "order", TypeActivity: "activity", TypePartKey: "key for parts", TypeClock: "clock",
	TypeEndpoint: "endpoint", TypeEndpointSecret: "endpoint secret", TypeOutgoing: "outgoing event",
	TypeDevice: "device", TypeVendorCredential: "vendor credential", TypeVendorKey: "vendor key",
}

// String is the type's name, for errors and logs.
func (t Type) String() string {
	if t.known() {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint16(t))
}

func (t Type) known() bool { return t >= TypeAppliance && int(t) < len(typeNames) }

// final says whether the removal of such a record ends somebody's power to sign,
// and so must never be undone.
func (t Type) final() bool {
	switch t {
	case TypeShare, TypeAPIKey, TypeVendorShare, TypeVendorAPIKey, TypeVendorKey, TypeWebhookSecret, TypeDelegation, TypeOperator, TypeUser:
		return true
	}
	return false
}
