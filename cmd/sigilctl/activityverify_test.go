package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/credential/authenticator"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/signing"
)

// story is a journal in which ann approved an activity that was signed then.
type story struct {
	genesis, user, opened, vote, approved journal.Entry
	ann                                   *credential.PrivateKey
	// phone is ann's authenticator, which votes in place of her key; nil for none.
	phone    *authenticator.Device
	activity signing.Activity
}

func newStory(t *testing.T) *story {
	t.Helper()
	ann, err := credential.GenerateKey(credential.P256)
	if err != nil {
		t.Fatal(err)
	}
	payload := []byte("hello")
	s := &story{ann: ann, activity: signing.Activity{
		ID: "act_1", ApplianceID: "apl_1", Organization: "org_1", Delegation: "dlg_1", Wallet: "wal_1", Requester: "usr_bot", RequestID: "r",
		Kind: chains.KindEVMMessage, Chain: "eip155", Address: "0x9cad63e4c09a9bd195568fc662835046c3605873", PayloadDigest: sha256.Sum256(payload),
		CreatedAt: time.UnixMilli(1000), ExpiresAt: time.UnixMilli(2000), Summary: "say hello",
	}}
	k := ann.Public()
	s.genesis = journal.Entry{Seq: 1, Kind: journal.KindGenesis, Facts: map[string]string{"appliance": "apl_1"}}
	s.user = journal.Entry{Seq: 2, Kind: journal.KindAct, Organization: "org_1", User: "usr_ann", Facts: map[string]string{"credential.1": fmt.Sprintf("%s %x ann's key", k.Algorithm, k.Bytes)}}
	s.opened = journal.Entry{Seq: 3, Kind: journal.KindActivity, Organization: "org_1", RequestID: "r", Facts: map[string]string{
		signing.FactActivity: "act_1", signing.FactActivityBytes: base64.StdEncoding.EncodeToString(s.activity.Encode())}}
	s.vote = journal.Entry{Seq: 4, Kind: journal.KindAct, Organization: "org_1", Method: approveMethod}
	s.cast(t, s.activity.Encode(), "apl_1", "org_1", approveMethod)
	s.approved = journal.Entry{Seq: 5, TimeMS: 1999, Kind: journal.KindApproved, Organization: "org_1", RequestID: "r", Delegation: "dlg_1", Wallet: "wal_1",
		Facts: map[string]string{signing.FactActivity: "act_1", "approvers": "usr_ann"},
		Asked: &journal.Asked{Kind: string(chains.KindEVMMessage), Chain: "eip155", Address: s.activity.Address, Payload: payload}}
	return s
}

// cast makes the vote's entry: a stamp over a message with these bytes.
func (s *story) cast(t *testing.T, shown []byte, appliance, organization, method string) {
	t.Helper()
	message, err := proto.Marshal(&sigilv1.ApproveActivityRequest{RequestId: "v", OrganizationId: organization, Activity: shown})
	if err != nil {
		t.Fatal(err)
	}
	var stamp credential.Stamp
	if s.phone != nil {
		stamp, err = s.phone.Stamp(appliance, organization, method, message, time.UnixMilli(1500))
	} else {
		stamp, err = credential.NewStamp(s.ann, credential.Act{ApplianceID: appliance, OrganizationID: organization, Method: method, IssuedAt: time.UnixMilli(1500), MessageHash: sha256.Sum256(message)})
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := stamp.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s.vote.Facts = map[string]string{signing.FactActivity: "act_1", delegation.FactVoteMessage: base64.StdEncoding.EncodeToString(message), delegation.FactVoteStamp + "1": string(text)}
}

func (s *story) verify(pinned map[string]bool) (*votes, error) {
	v := &votes{out: io.Discard, pinned: pinned, activities: map[string]*decided{}, owners: map[string]string{}}
	for _, e := range []journal.Entry{s.genesis, s.user, s.opened, s.vote, s.approved} {
		if err := v.entry(e); err != nil {
			return v, err
		}
	}
	return v, nil
}

func TestVotesAreVerified(t *testing.T) {
	s := newStory(t)
	v, err := s.verify(map[string]bool{s.ann.Public().ID(): true})
	if err != nil || v.opens != 1 || v.count != 1 || v.signed != 1 {
		t.Fatalf("%+v, %v", v, err)
	}
	for name, row := range map[string]struct {
		change func(*testing.T, *story)
		want   string
	}{
		"other bytes": {func(t *testing.T, s *story) {
			other := s.activity
			other.PayloadDigest[0] ^= 1
			s.cast(t, other.Encode(), "apl_1", "org_1", approveMethod)
		}, "over other bytes"},
		"another appliance":    {func(t *testing.T, s *story) { s.cast(t, s.activity.Encode(), "apl_2", "org_1", approveMethod) }, "not over this vote"},
		"another organization": {func(t *testing.T, s *story) { s.cast(t, s.activity.Encode(), "apl_1", "org_2", approveMethod) }, "over other bytes"},
		"a rejection's stamp":  {func(t *testing.T, s *story) { s.cast(t, s.activity.Encode(), "apl_1", "org_1", rejectMethod) }, "not over this vote"},
		"another's stamp": {func(t *testing.T, s *story) {
			was := s.vote.Facts[delegation.FactVoteMessage]
			s.cast(t, append(s.activity.Encode(), 0), "apl_1", "org_1", approveMethod)
			s.vote.Facts[delegation.FactVoteMessage] = was
		}, "not over this vote"},
		"an unknown user":        {func(_ *testing.T, s *story) { s.user.Organization = "org_2" }, "of no user"},
		"another's name":         {func(_ *testing.T, s *story) { s.vote.Facts[delegation.FactVoteUser+"1"] = "usr_bea" }, "voted as usr_bea"},
		"nothing before":         {func(_ *testing.T, s *story) { s.opened.Kind = journal.KindAct }, "nobody opened"},
		"another request":        {func(_ *testing.T, s *story) { s.approved.RequestID = "other" }, "for another request"},
		"too late":               {func(_ *testing.T, s *story) { s.approved.TimeMS = 2000 }, "after its end"},
		"who never approved":     {func(_ *testing.T, s *story) { s.approved.Facts["approvers"] = "usr_ann usr_bea" }, "usr_bea, who has given none"},
		"another payload":        {func(_ *testing.T, s *story) { s.approved.Asked.Payload = []byte("hallo") }, "something else was signed"},
		"a garbled activity":     {func(_ *testing.T, s *story) { s.opened.Facts[signing.FactActivityBytes] = "AAAA" }, "not an activity"},
		"another's activity":     {func(_ *testing.T, s *story) { s.opened.RequestID = "other" }, "not that of its entry"},
		"executed though undone": {func(_ *testing.T, s *story) { s.vote.Method = rejectMethod }, "not over this vote"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			row.change(t, s)
			if _, err := s.verify(nil); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %q", err, row.want)
			}
		})
	}
	if _, err := newStory(t).verify(map[string]bool{"another": true}); err == nil {
		t.Error("a key that is not pinned counts")
	}
}

// ann votes with her passkey: the assertion is verified from the journal alone, with the
// relying party that the vote's entry tells of.
func TestPasskeysVotesAreVerified(t *testing.T) {
	tell := func(t *testing.T) *story {
		t.Helper()
		s := newStory(t)
		var err error
		if s.phone, err = authenticator.New(); err != nil {
			t.Fatal(err)
		}
		k := s.phone.Public()
		s.user.Facts["credential.1"] = fmt.Sprintf("%s %x ann's phone", k.Algorithm, k.Bytes)
		s.revote(t)
		return s
	}
	s := tell(t)
	if v, err := s.verify(map[string]bool{s.phone.Public().ID(): true}); err != nil || v.count != 1 || v.signed != 1 {
		t.Fatalf("%+v, %v", v, err)
	}
	// An end user of a sub-organization comes in its organization's entry.
	s.user = journal.Entry{Seq: 2, Kind: journal.KindAct, Organization: "org_parent", Facts: map[string]string{
		"organization": "org_1", "end_user": "usr_ann", "end_user.credential.1": s.user.Facts["credential.1"]}}
	if v, err := s.verify(nil); err != nil || v.owners["org_1/"+s.phone.Public().ID()] != "usr_ann" {
		t.Errorf("a sub-organization's end user: %+v, %v", v.owners, err)
	}
	for name, row := range map[string]struct {
		change func(*testing.T, *story)
		want   string
	}{
		"no relying party": {func(_ *testing.T, s *story) { delete(s.vote.Facts, delegation.FactVoteParty+"1") }, "not over this vote"},
		"another relying party": {func(t *testing.T, s *story) {
			s.vote.Facts[delegation.FactVoteParty+"1"] = strings.ReplaceAll(s.vote.Facts[delegation.FactVoteParty+"1"], "wallet.example", "evil.example")
		}, "not over this vote"},
		"a garbled relying party": {func(_ *testing.T, s *story) { s.vote.Facts[delegation.FactVoteParty+"1"] = "{" }, "reading the relying party"},
		"a page elsewhere": {func(t *testing.T, s *story) {
			s.phone.Page = strings.ReplaceAll(s.phone.Page, "https://wallet.example", "https://evil.example")
			s.revote(t)
		}, "not over this vote"},
		"a user not verified": {func(t *testing.T, s *story) { s.phone.Flags = 1; s.revote(t) }, "not over this vote"},
		"other bytes": {func(t *testing.T, s *story) {
			was := s.vote.Facts[delegation.FactVoteMessage]
			s.cast(t, append(s.activity.Encode(), 0), "apl_1", "org_1", approveMethod)
			s.vote.Facts[delegation.FactVoteMessage] = was
		}, "not over this vote"},
	} {
		t.Run(name, func(t *testing.T) {
			s := tell(t)
			row.change(t, s)
			if _, err := s.verify(nil); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %q", err, row.want)
			}
		})
	}
}

// revote casts the vote anew with the passkey, and tells of its relying party.
func (s *story) revote(t *testing.T) {
	t.Helper()
	s.cast(t, s.activity.Encode(), "apl_1", "org_1", approveMethod)
	party, err := json.Marshal(s.phone.RelyingParty)
	if err != nil {
		t.Fatal(err)
	}
	s.vote.Facts[delegation.FactVoteParty+"1"] = string(party)
}
