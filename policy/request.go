package policy

import (
	"strings"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Request is what one decision is about. Everything in it was established by
// the caller before: decoded, authenticated, looked up. Nothing is taken from
// what a client claims about its own payload.
type Request struct {
	// Decoded is the payload; nil when the activity has none.
	Decoded *chains.Decoded
	// Kind is the kind of payload that was asked for. When Decoded is of another
	// kind the request is denied with an error. Empty: whatever Decoded is.
	Kind     chains.Kind
	Activity Activity
	// Wallet, WalletAccount and PrivateKey are what is acted on; nil when the
	// activity is about none.
	Wallet        *Wallet
	WalletAccount *WalletAccount
	PrivateKey    *PrivateKey
	// Requester is the id of the user who asks; empty when that is nobody a policy knows.
	Requester string
	// Approvers are the users whose approval was verified, each once.
	Approvers []User
	// Credentials are those that the approvals were stamped with.
	Credentials []Credential
	// Now is the time of the decision. The zero time makes rules about time errors.
	Now time.Time
	// DelegationID is the delegation that asks; empty when the owner does.
	DelegationID string
	// DelegatedUser is whom it was given to, DelegationEnds when it ends by itself;
	// the zero time: never.
	DelegatedUser  string
	DelegationEnds time.Time
	RequestID      string
	// Caller is the process at the other end of the socket; nil when unknown.
	Caller *Caller
	// Spending is the request as limits see it, for conditions that read controls; nil:
	// reading one is an error.
	Spending *Spending
}

// Activity is what is asked for, in Turnkey's words. Reading an empty field is
// an evaluation error.
type Activity struct {
	Type     string // ACTIVITY_TYPE_SIGN_TRANSACTION_V2
	Kind     string // SIGN_TRANSACTION
	Resource string // PRIVATE_KEY, WALLET, POLICY
	Action   string // SIGN, CREATE, UPDATE, DELETE, EXPORT, IMPORT
	Params   ActivityParams
}

// ActivityParams are the parameters that policies may read, in the words of
// Turnkey's policy language (Activity parameters); "" and nil where the activity has
// none. This appliance signs; those of other activities are for policies, and
// requests, that come from elsewhere.
type ActivityParams struct {
	HashFunction     string   `json:"hash_function"` // HASH_FUNCTION_NO_OP
	Encoding         string   `json:"encoding"`      // PAYLOAD_ENCODING_HEXADECIMAL
	Type             string   `json:"type"`          // TRANSACTION_TYPE_ETHEREUM
	UserIDs          []string `json:"user_ids"`
	UserID           string   `json:"user_id"`
	APIKeyIDs        []string `json:"api_key_ids"`
	TargetPublicKey  string   `json:"target_public_key"`
	WalletID         string   `json:"wallet_id"`
	OTPLength        *uint64  `json:"otp_length"`
	SessionProfileID *string  `json:"session_profile_id"` // "" is none chosen
	EndpointID       string   `json:"endpoint_id"`
}

// Wallet is the wallet that is to sign.
type Wallet struct {
	ID, Label string
	// Imported: the key was whole outside. Exported: it has left whole.
	Imported, Exported bool
}

// WalletAccount is the account of the wallet on the payload's chain.
type WalletAccount struct {
	// Address is a chains.AddressValue or a chains.PubkeyValue.
	Address chains.Value
}

// PrivateKey is a key that belongs to no wallet.
type PrivateKey struct {
	ID, Label          string
	Tags               []string
	Imported, Exported bool
}

// User is an approver.
type User struct {
	ID, Email, Alias string
	Tags             []string
}

// Credential is what an approver stamped with.
type Credential struct {
	ID, UserID string
	Type       string // CREDENTIAL_TYPE_WEBAUTHN_AUTHENTICATOR
	// CredentialID is WebAuthn's, "" for others.
	CredentialID string
	// PublicKey is hexadecimal.
	PublicKey string
}

// Caller is the peer of the socket, from SO_PEERCRED.
type Caller struct {
	UID, GID uint32
	// Unit finds its systemd unit, "" when that can't be determined; nil: it can't.
	// It is called once a decision at most, when a policy reads caller.
	Unit func() string
}

func structOf(fields ...chains.Field) *chains.Type {
	return &chains.Type{Kind: chains.KindStruct, Fields: fields}
}

func listOf(elem *chains.Type) *chains.Type { return &chains.Type{Kind: chains.KindList, Elem: elem} }

var (
	paramsType = structOf(
		chains.Field{Name: "hash_function", Type: typeString, Doc: "HASH_FUNCTION_…; raw signing only"},
		chains.Field{Name: "encoding", Type: typeString, Doc: "PAYLOAD_ENCODING_…; raw signing only"},
		chains.Field{Name: "type", Type: typeString, Doc: "TRANSACTION_TYPE_…; transactions only"},
		chains.Field{Name: "user_ids", Type: listOf(typeString), Doc: "who is deleted; deleting users only"},
		chains.Field{Name: "user_id", Type: typeString, Doc: "whose; API keys only"},
		chains.Field{Name: "api_key_ids", Type: listOf(typeString), Doc: "what is deleted; deleting API keys only"},
		chains.Field{Name: "target_public_key", Type: typeHex, Doc: "whom the key is encrypted to; exports only"},
		chains.Field{Name: "wallet_id", Type: typeString, Doc: "the wallet changed; updates of wallets only"},
		chains.Field{Name: "otp_length", Type: typeInt, Doc: "digits of the code; one-time passwords only"},
		chains.Field{Name: "session_profile_id", Type: typeString, Doc: "'' for none; logins only"},
		chains.Field{Name: "endpoint_id", Type: typeString, Doc: "the endpoint; webhook endpoints only"},
	)
	activityType = structOf(
		chains.Field{Name: "type", Type: typeString, Doc: "ACTIVITY_TYPE_…, with its version"},
		chains.Field{Name: "kind", Type: typeString, Doc: "the type without prefix and version: SIGN_TRANSACTION"},
		chains.Field{Name: "resource", Type: typeString, Doc: "what is acted on: PRIVATE_KEY, WALLET, POLICY"},
		chains.Field{Name: "action", Type: typeString, Doc: "SIGN, CREATE, UPDATE, DELETE, EXPORT, IMPORT"},
		chains.Field{Name: "params", Type: paramsType, Doc: "parameters of the activity"},
	)
	walletType = structOf(
		chains.Field{Name: "id", Type: typeString, Doc: "id of the wallet"},
		chains.Field{Name: "label", Type: typeString, Doc: "its name for people"},
		chains.Field{Name: "imported", Type: typeBool, Doc: "the key was whole outside"},
		chains.Field{Name: "exported", Type: typeBool, Doc: "the key has left whole"},
	)
	walletAccountType = structOf(
		chains.Field{Name: "address", Type: typeAccount, Doc: "the signing account, address or pubkey by its chain"},
	)
	privateKeyType = structOf(
		chains.Field{Name: "id", Type: typeString, Doc: "id of the key"},
		chains.Field{Name: "tags", Type: listOf(typeString), Doc: "ids of its tags"},
		chains.Field{Name: "imported", Type: typeBool, Doc: "the key was whole outside"},
		chains.Field{Name: "exported", Type: typeBool, Doc: "the key has left whole"},
		chains.Field{Name: "label", Type: typeString, Doc: "its name for people"},
	)
	userType = structOf(
		chains.Field{Name: "id", Type: typeString, Doc: "id of the user"},
		chains.Field{Name: "tags", Type: listOf(typeString), Doc: "ids of the user's tags"},
		chains.Field{Name: "email", Type: typeString, Doc: "email address, '' for none"},
		chains.Field{Name: "alias", Type: typeString, Doc: "name for people, '' for none"},
	)
	credentialType = structOf(
		chains.Field{Name: "id", Type: typeString, Doc: "id of the credential"},
		chains.Field{Name: "user_id", Type: typeString, Doc: "whose it is"},
		chains.Field{Name: "type", Type: typeString, Doc: "CREDENTIAL_TYPE_…"},
		chains.Field{Name: "credential_id", Type: typeString, Doc: "WebAuthn's id, '' for others"},
		chains.Field{Name: "public_key", Type: typeHex, Doc: "public key, hexadecimal"},
	)
	timeType       = structOf(chains.Field{Name: "now", Type: typeTime, Doc: "the time of the decision"})
	delegationType = structOf(
		chains.Field{Name: "id", Type: typeString, Doc: "the delegation that asks; absent when the owner does"},
		chains.Field{Name: "user_id", Type: typeString, Doc: "whom it was given to; absent when the owner asks"},
		chains.Field{Name: "ends", Type: typeTime, Doc: "when it ends by itself; absent when it does not"},
	)
	chargesType = listOf(structOf(
		chains.Field{Name: "chain", Type: typeString, Doc: "CAIP-2 id; 'eip155' is every EVM chain"},
		chains.Field{Name: "asset", Type: typeString, Doc: "CAIP-19 id; token contracts of EVM chains in lower case"},
		chains.Field{Name: "amount", Type: typeInt, Doc: "at most, in the asset's smallest unit; absent when unbounded"},
		chains.Field{Name: "unbounded", Type: typeBool, Doc: "nothing bounds the amount"},
		chains.Field{Name: "what", Type: typeString, Doc: "'transfer', 'approval' or 'fee'"},
		chains.Field{Name: "to", Type: typeString, Doc: "recipient or spender as its chain spells it; '' for a fee"},
	))
	requestIDType = structOf(chains.Field{Name: "id", Type: typeString, Doc: "the caller's id for this request"})
	callerType    = structOf(
		chains.Field{Name: "uid", Type: typeInt, Doc: "user id of the calling process; absent when unknown"},
		chains.Field{Name: "gid", Type: typeInt, Doc: "group id of the calling process; absent when unknown"},
		chains.Field{Name: "unit", Type: typeString, Doc: "its systemd unit, 'bot.service'; absent when that can't be determined"},
	)
)

// requestRoots are the roots beside the payload's.
var requestRoots = []Root{
	{Name: "activity", Type: activityType, Doc: "what is asked for", clauses: []string{ClauseCondition}, of: activityValue},
	{Name: "wallet", Type: walletType, Doc: "the wallet acted on", presence: perSubject, clauses: []string{ClauseCondition}, of: walletValue},
	{Name: "wallet_account", Type: walletAccountType, Doc: "its account on the payload's chain", presence: perSubject, clauses: []string{ClauseCondition}, of: accountValue},
	{Name: "private_key", Type: privateKeyType, Doc: "the key acted on, when it belongs to no wallet", presence: perSubject, clauses: []string{ClauseCondition}, of: privateKeyValue},
	{Name: "approvers", Type: listOf(userType), Doc: "who approved", clauses: []string{ClauseConsensus}, of: approversValue},
	{Name: "credentials", Type: listOf(credentialType), Doc: "what they approved with", clauses: []string{ClauseConsensus}, of: credentialsValue},
	{Name: "time", Type: timeType, Doc: "the clock", clauses: []string{ClauseCondition, ClauseTime}, of: timeValue},
	{Name: "charges", Type: chargesType, Doc: "what the payload spends, as limits count it; not there when part of the payload was not understood", lang: LangSigild, clauses: []string{ClauseCondition}, of: chargesValue},
	{Name: "delegation", Type: delegationType, Doc: "who asks in the owner's place", lang: LangSigild, clauses: []string{ClauseCondition}, of: delegationValue},
	{Name: "request", Type: requestIDType, Doc: "this request", lang: LangSigild, clauses: []string{ClauseCondition}, of: requestIDValue},
	{Name: "caller", Type: callerType, Doc: "the process that asks", lang: LangSigild, clauses: []string{ClauseCondition}, of: callerValue},
}

// stated is absent for an empty text: what nobody said is not the same as saying nothing.
func stated(s string) chains.Value {
	if s == "" {
		return chains.Value{}
	}
	return chains.StringValue(s)
}

func texts(ss []string) chains.Value {
	vs := make([]chains.Value, len(ss))
	for i, s := range ss {
		vs[i] = chains.StringValue(s)
	}
	return chains.ListValue(vs...)
}

func activityValue(r *Request) chains.Value {
	a, p := &r.Activity, &r.Activity.Params
	var length, profile chains.Value
	if p.OTPLength != nil {
		length = chains.Uint64Value(*p.OTPLength)
	}
	if p.SessionProfileID != nil {
		profile = chains.StringValue(*p.SessionProfileID)
	}
	listed := func(ids []string) chains.Value {
		if ids == nil {
			return chains.Value{}
		}
		return texts(ids)
	}
	key := stated(p.TargetPublicKey)
	if key.Kind != chains.KindAbsent {
		key = chains.HexValue(strings.ToLower(p.TargetPublicKey))
	}
	return chains.StructValue(stated(a.Type), stated(a.Kind), stated(a.Resource), stated(a.Action),
		chains.StructValue(stated(p.HashFunction), stated(p.Encoding), stated(p.Type), listed(p.UserIDs), stated(p.UserID),
			listed(p.APIKeyIDs), key, stated(p.WalletID), length, profile, stated(p.EndpointID)))
}

func walletValue(r *Request) chains.Value {
	if r.Wallet == nil {
		return chains.Value{}
	}
	w := r.Wallet
	return chains.StructValue(stated(w.ID), chains.StringValue(w.Label), chains.BoolValue(w.Imported), chains.BoolValue(w.Exported))
}

func accountValue(r *Request) chains.Value {
	if r.WalletAccount == nil {
		return chains.Value{}
	}
	return chains.StructValue(r.WalletAccount.Address)
}

func privateKeyValue(r *Request) chains.Value {
	if r.PrivateKey == nil {
		return chains.Value{}
	}
	k := r.PrivateKey
	return chains.StructValue(stated(k.ID), texts(k.Tags), chains.BoolValue(k.Imported), chains.BoolValue(k.Exported), chains.StringValue(k.Label))
}

func approversValue(r *Request) chains.Value {
	vs := make([]chains.Value, len(r.Approvers))
	for i, u := range r.Approvers {
		vs[i] = chains.StructValue(stated(u.ID), texts(u.Tags), chains.StringValue(u.Email), chains.StringValue(u.Alias))
	}
	return chains.ListValue(vs...)
}

func credentialsValue(r *Request) chains.Value {
	vs := make([]chains.Value, len(r.Credentials))
	for i, c := range r.Credentials {
		vs[i] = chains.StructValue(stated(c.ID), stated(c.UserID), stated(c.Type), chains.StringValue(c.CredentialID), chains.HexValue(strings.ToLower(c.PublicKey)))
	}
	return chains.ListValue(vs...)
}

func timeValue(r *Request) chains.Value {
	if r.Now.IsZero() {
		return chains.StructValue(chains.Value{})
	}
	return chains.StructValue(instant(r.Now))
}

// chargesValue is absent, an error to read, for an opaque payload: what is missing
// from the list could be what a rule is about.
func chargesValue(r *Request) chains.Value {
	if r.Decoded == nil || r.Decoded.Opaque {
		return chains.Value{}
	}
	vs := make([]chains.Value, len(r.Decoded.Charges))
	for i := range vs {
		c := &r.Decoded.Charges[i]
		var amount chains.Value
		if !c.Unbounded {
			amount = chains.IntValue(&c.Amount)
		}
		vs[i] = chains.StructValue(chains.StringValue(c.Chain), chains.StringValue(c.Asset), amount,
			chains.BoolValue(c.Unbounded), chains.StringValue(c.What), chains.StringValue(c.To))
	}
	return chains.ListValue(vs...)
}

func delegationValue(r *Request) chains.Value {
	var ends chains.Value
	if !r.DelegationEnds.IsZero() {
		ends = instant(r.DelegationEnds)
	}
	return chains.StructValue(stated(r.DelegationID), stated(r.DelegatedUser), ends)
}

func requestIDValue(r *Request) chains.Value { return chains.StructValue(stated(r.RequestID)) }

func callerValue(r *Request) chains.Value {
	if r.Caller == nil {
		return chains.StructValue(chains.Value{}, chains.Value{}, chains.Value{})
	}
	unit := ""
	if r.Caller.Unit != nil {
		unit = r.Caller.Unit()
	}
	return chains.StructValue(chains.Uint64Value(uint64(r.Caller.UID)), chains.Uint64Value(uint64(r.Caller.GID)), stated(unit))
}

// instant is t as nanoseconds since 1970, exact for every year Go can print.
func instant(t time.Time) chains.Value {
	v := chains.Value{Kind: kindTime}
	seconds, nanos := t.Unix(), uint64(t.Nanosecond())
	if seconds >= 0 {
		v.Int.SetUint64(uint64(seconds))
		v.Int.Mul(&v.Int, uint256.NewInt(1e9))
		v.Int.AddUint64(&v.Int, nanos)
		return v
	}
	v.Int.SetUint64(uint64(-seconds))
	v.Int.Mul(&v.Int, uint256.NewInt(1e9))
	v.Int.SubUint64(&v.Int, nanos)
	v.Neg = true
	return v
}
