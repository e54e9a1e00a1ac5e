package server

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigild/sigild/refusal"
)

// This file says who may call what. It is the whole of step 2, and necessary,
// never sufficient: behind it every act still needs its API key or the quorum of
// stamps its subject demands, which delegation and signing judge. What has no row
// is refused. docs/authority.md says the same for people; a test compares them.

// socket is one of the two doors; a set of them is their sum.
type socket uint8

const (
	onApp   socket = 1 << iota // sigild.sock, for applications
	onAdmin                    // admin.sock, for operators
)

// role is what a caller may be; a set of them is their sum.
type role uint8

const (
	roleApp      role = 1 << iota // runs wallets and signs: a back end, a bot
	roleOperator                  // runs the appliance
	roleAuditor                   // looks and verifies
	roleCourier                   // carries deliveries between the network and the appliance
)

// authentication is what a call must carry besides its caller's uid.
type authentication uint8

const (
	byNothing authentication = iota // the uid is enough
	byAPIKey                        // one wallet API key, in metadata sigild-api-key
	byStamps                        // 1 to 16 stamps, in metadata sigild-stamp-bin
	byEither                        // one of the two, not both
)

// signatory says whose stamps an act wants; delegation counts them.
type signatory uint8

const (
	operators signatory = 1 << iota // the operators' quorum; the stamps name no organization
	root                            // the organization's root quorum
	owner                           // the end user who owns the wallet
	member                          // any root member or end user of the organization
	anyUser                         // its users, delegated ones included: policies judge whether they are enough
)

// access is one row: one method.
type access struct {
	method string
	socket socket
	role   role
	by     authentication
	stamps signatory
	// maxBytes bounds the request message.
	maxBytes int
	// deadline is what a call without one gets; 0 means Limits.Deadline.
	deadline time.Duration
}

const kib = 1024

// table is sorted by service as docs/authority.md is.
var table = []access{
	{method: "/grpc.health.v1.Health/Check", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byNothing, maxBytes: kib},

	{method: "/sigil.v1.StatusService/GetStatus", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor | roleCourier, by: byNothing, maxBytes: kib},

	{method: "/sigil.v1.OrganizationService/CreateOrganization", socket: onAdmin, role: roleOperator, by: byStamps, stamps: operators, maxBytes: 16 * kib},

	{method: "/sigil.v1.UserService/CreateUser", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 16 * kib},

	{method: "/sigil.v1.MemberService/ListMembers", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},
	{method: "/sigil.v1.MemberService/AddCredential", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root | member, maxBytes: 16 * kib},
	{method: "/sigil.v1.MemberService/RotateCredential", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root | anyUser, maxBytes: 16 * kib},
	{method: "/sigil.v1.MemberService/RevokeCredential", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root | member, maxBytes: 4 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.MemberService/SetTags", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib},
	{method: "/sigil.v1.MemberService/RemoveUser", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.MemberService/SetRootQuorum", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib},

	{method: "/sigil.v1.DelegatedUserService/CreateSubOrganization", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 32 * kib},
	{method: "/sigil.v1.DelegatedUserService/CreateDelegatedAccess", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 512 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.DelegatedUserService/VerifyDelegatedAccess", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},
	{method: "/sigil.v1.DelegatedUserService/FetchOrCreateDelegatedUser", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 16 * kib},
	{method: "/sigil.v1.DelegatedUserService/FetchOrCreatePolicies", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 512 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.DelegatedUserService/ReportOrderFilled", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root | anyUser, maxBytes: 8 * kib, deadline: 30 * time.Second},

	{method: "/sigil.v1.KeyDelegationService/CreateKey", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib},
	{method: "/sigil.v1.KeyDelegationService/DelegateKey", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.KeyDelegationService/GetSignature", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member | anyUser, maxBytes: 4 * kib},

	{method: "/sigil.v1.WalletService/CreateWallet", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib},
	{method: "/sigil.v1.WalletService/ImportWallet", socket: onAdmin, role: roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib},
	{method: "/sigil.v1.WalletService/DeriveWallet", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib},
	{method: "/sigil.v1.WalletService/GetWallet", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},
	{method: "/sigil.v1.WalletService/GetCeremony", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},
	{method: "/sigil.v1.WalletService/FetchShare", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: owner, maxBytes: 4 * kib},
	{method: "/sigil.v1.WalletService/ConfirmShare", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: owner, maxBytes: 4 * kib},

	{method: "/sigil.v1.KeyService/GetKey", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},
	{method: "/sigil.v1.KeyService/SetKey", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root | owner, maxBytes: 4 * kib},
	{method: "/sigil.v1.KeyService/RotateKey", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root | owner, maxBytes: 4 * kib},
	{method: "/sigil.v1.KeyService/RecoverShare", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root | owner, maxBytes: 4 * kib},
	{method: "/sigil.v1.KeyService/RecoverDevice", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root | owner, maxBytes: 16 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.KeyService/RecoverCustodian", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: owner, maxBytes: 64 * kib},

	{method: "/sigil.v1.DeviceService/RegisterDevice", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: owner, maxBytes: 4 * kib},
	{method: "/sigil.v1.DeviceService/RemoveDevice", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: owner | root, maxBytes: 4 * kib},
	{method: "/sigil.v1.DeviceService/CreateDeviceWallet", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib},

	{method: "/sigil.v1.CeremonyService/ListCeremonies", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},
	{method: "/sigil.v1.CeremonyService/ShowCeremony", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},
	{method: "/sigil.v1.CeremonyService/AbortCeremony", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: owner | root, maxBytes: 4 * kib, deadline: 30 * time.Second},

	{method: "/sigil.v1.CosignService/AcceptCosigning", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib},

	{method: "/sigil.v1.ReceiptService/GetDelegationReceipt", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},

	{method: "/sigil.v1.DelegationService/CreateDelegation", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: owner, maxBytes: 512 * kib},
	{method: "/sigil.v1.DelegationService/GetDelegation", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},
	{method: "/sigil.v1.DelegationService/RevokeDelegation", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: owner | root, maxBytes: 4 * kib, deadline: 30 * time.Second},

	{method: "/sigil.v1.DelegatedAccessService/SetDelegatedAccess", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 512 * kib},
	{method: "/sigil.v1.DelegatedAccessService/GetDelegatedAccess", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},
	{method: "/sigil.v1.DelegatedAccessService/RequestDelegation", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: member, maxBytes: 512 * kib},
	{method: "/sigil.v1.DelegatedAccessService/ApproveDelegation", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: owner, maxBytes: 4 * kib},
	{method: "/sigil.v1.DelegatedAccessService/ListDelegations", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},
	{method: "/sigil.v1.DelegatedAccessService/DescribeDelegation", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},
	{method: "/sigil.v1.DelegatedAccessService/NextEvents", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: kib, deadline: 30 * time.Second},

	{method: "/sigil.v1.PolicyService/SetDocuments", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 1024 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.PolicyService/ApplyBundle", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byNothing, maxBytes: 1024 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.PolicyService/GetDocuments", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},

	{method: "/sigil.v1.ControlService/Pause", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: operators | root | owner, maxBytes: 4 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.ControlService/Resume", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: operators | root | owner, maxBytes: 4 * kib},
	{method: "/sigil.v1.ControlService/Seal", socket: onAdmin, role: roleOperator, by: byStamps, stamps: operators, maxBytes: 4 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.ControlService/Unseal", socket: onAdmin, role: roleOperator, by: byStamps, stamps: operators, maxBytes: 4 * kib, deadline: 30 * time.Second},

	{method: "/sigil.v1.KeyslotService/ListKeyslots", socket: onAdmin, role: roleOperator, by: byStamps, stamps: operators, maxBytes: kib},
	{method: "/sigil.v1.KeyslotService/AddCustodians", socket: onAdmin, role: roleOperator, by: byStamps, stamps: operators, maxBytes: 4 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.KeyslotService/AddDeviceGroup", socket: onAdmin, role: roleOperator, by: byStamps, stamps: operators, maxBytes: 4 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.KeyslotService/RemoveKeyslotGroup", socket: onAdmin, role: roleOperator, by: byStamps, stamps: operators, maxBytes: 4 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.KeyslotService/VerifyKeyslotGroup", socket: onAdmin, role: roleOperator, by: byStamps, stamps: operators, maxBytes: 4 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.KeyslotService/RotateRootKey", socket: onAdmin, role: roleOperator, by: byStamps, stamps: operators, maxBytes: 4 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.KeyslotService/RotateKEK", socket: onAdmin, role: roleOperator, by: byStamps, stamps: operators, maxBytes: 4 * kib, deadline: 30 * time.Second},

	{method: "/sigil.v1.LimitService/ListLimits", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},

	{method: "/sigil.v1.ClockService/GetClock", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byNothing, maxBytes: kib},
	{method: "/sigil.v1.ClockService/ConfirmClock", socket: onAdmin, role: roleOperator, by: byStamps, stamps: operators, maxBytes: 4 * kib},

	{method: "/sigil.v1.AuditService/ReadJournal", socket: onAdmin, role: roleAuditor, by: byNothing, maxBytes: kib},

	{method: "/sigil.v1.DeliveryService/RegisterWebhook", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib, deadline: 30 * time.Second},
	{method: "/sigil.v1.DeliveryService/IngestDelivery", socket: onApp, role: roleApp | roleCourier, by: byNothing, maxBytes: 65 * kib},
	{method: "/sigil.v1.DeliveryService/ListDeliveries", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},

	{method: "/sigil.v1.EndpointService/RegisterEndpoint", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 8 * kib},
	{method: "/sigil.v1.EndpointService/AddEndpointKey", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 8 * kib},
	{method: "/sigil.v1.EndpointService/ChangeEndpointKey", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib},
	{method: "/sigil.v1.EndpointService/PingEndpoint", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib},
	{method: "/sigil.v1.EndpointService/RedeliverEvents", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib},
	{method: "/sigil.v1.EndpointService/ListEndpoints", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: 4 * kib},

	{method: "/sigil.v1.CourierService/TakeEvents", socket: onApp, role: roleCourier, by: byNothing, maxBytes: kib},
	{method: "/sigil.v1.CourierService/ReportEvent", socket: onApp, role: roleCourier, by: byNothing, maxBytes: kib},

	{method: "/sigil.v1.VendorService/SetDeveloperToken", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib},
	{method: "/sigil.v1.VendorService/BindDelivery", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 512 * kib},

	{method: "/sigil.v1.VendorCredentialService/CreateVendorCredential", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib},
	{method: "/sigil.v1.VendorCredentialService/ListVendorCredentials", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: kib},
	{method: "/sigil.v1.VendorCredentialService/BindVendorCredential", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 512 * kib},
	{method: "/sigil.v1.VendorCredentialService/RevokeVendorCredential", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root, maxBytes: 4 * kib, deadline: 30 * time.Second},

	{method: "/sigil.v1.StampingService/StampRequest", socket: onApp, role: roleApp, by: byAPIKey, maxBytes: 304 * kib, deadline: 30 * time.Second},

	{method: "/sigil.v1.ActivityService/ListActivities", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member | anyUser, maxBytes: kib},
	{method: "/sigil.v1.ActivityService/GetActivity", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member | anyUser, maxBytes: kib},
	{method: "/sigil.v1.ActivityService/ApproveActivity", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: member | anyUser, maxBytes: 68 * kib},
	{method: "/sigil.v1.ActivityService/RejectActivity", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: member | anyUser, maxBytes: 68 * kib},

	{method: "/sigil.v1.OrderService/OpenOrder", socket: onApp, role: roleApp, by: byAPIKey, maxBytes: 16 * kib},
	{method: "/sigil.v1.OrderService/CloseOrder", socket: onApp, role: roleApp, by: byAPIKey, maxBytes: 4 * kib},
	{method: "/sigil.v1.OrderService/ListOrders", socket: onApp, role: roleApp, by: byAPIKey, maxBytes: 4 * kib},
	{method: "/sigil.v1.OrderService/EndOrder", socket: onApp | onAdmin, role: roleApp | roleOperator, by: byStamps, stamps: root | owner, maxBytes: kib},
	{method: "/sigil.v1.OrderService/ShowOrders", socket: onApp | onAdmin, role: roleApp | roleOperator | roleAuditor, by: byStamps, stamps: member, maxBytes: kib},

	{method: "/sigil.v1.SigningService/Sign", socket: onApp, role: roleApp, by: byEither, stamps: anyUser, maxBytes: 264 * kib, deadline: 30 * time.Second},
}

// lookup finds a method's row; nil when there is none.
func lookup(method string) *access {
	for i := range table {
		if table[i].method == method {
			return &table[i]
		}
	}
	return nil
}

// Holders are the callers that have a role.
type Holders struct {
	// UIDs and GIDs, in the daemon's user namespace. A gid is matched with the
	// caller's effective group only, not with its supplementary groups.
	UIDs, GIDs []uint32
}

// Roles says which callers have which role. Nobody has a role by default, uid 0
// neither; 65534 can't be given one.
type Roles struct {
	App, Operator, Auditor, Courier Holders
}

func (h Holders) holds(c Caller) bool {
	return slices.Contains(h.UIDs, c.UID) || slices.Contains(h.GIDs, c.GID)
}

// check refuses 65534: it is what the kernel shows for whoever it can't name.
func (r Roles) check() error {
	for name, h := range map[string]Holders{"app": r.App, "operator": r.Operator, "auditor": r.Auditor, "courier": r.Courier} {
		if slices.Contains(h.UIDs, nobody) || slices.Contains(h.GIDs, nobody) {
			return fmt.Errorf("role %s: id %d stands for every user the kernel can't name; hint: give the caller an id of its own", name, nobody)
		}
	}
	return nil
}

func (r Roles) of(c Caller) role {
	if c.UID == nobody {
		return 0
	}
	var has role
	if r.App.holds(c) {
		has |= roleApp
	}
	if r.Operator.holds(c) {
		has |= roleOperator
	}
	if r.Auditor.holds(c) {
		has |= roleAuditor
	}
	if r.Courier.holds(c) {
		has |= roleCourier
	}
	return has
}

// admit is step 2. It says the same of a method that doesn't exist as of one
// that is not this caller's.
func (r Roles) admit(c Caller, at socket, method string) (*access, error) {
	if c.UID == nobody {
		return nil, refusal.New(refusal.CallerNotAllowed,
			"the kernel can't say who calls (uid %d); hint: a user namespace between caller and sigild, such as PrivateUsers=yes, hides uids", nobody)
	}
	row := lookup(method)
	if row == nil || row.socket&at == 0 || row.role&r.of(c) == 0 {
		return nil, refusal.New(refusal.CallerNotAllowed,
			"uid %d, gid %d may not call this method on %s", c.UID, c.GID, at)
	}
	return row, nil
}

// The names that docs/authority.md uses.

func (s socket) String() string {
	return names(s, []string{"sigild.sock", "admin.sock"})
}

func (r role) String() string {
	return names(r, []string{"app", "operator", "auditor", "courier"})
}

func (s signatory) String() string {
	return names(s, []string{"operators", "root", "owner", "member", "user"})
}

func (a authentication) String() string {
	return []string{"none", "API key", "stamps", "API key or stamps"}[a]
}

// names joins the names of the bits that are set.
func names[T ~uint8](set T, all []string) string {
	var out []string
	for i, name := range all {
		if set&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, ", ")
}
