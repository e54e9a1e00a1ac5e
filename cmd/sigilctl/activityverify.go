package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/signable"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/signing"
)

func activityVerifyCommand() *cobra.Command {
	var db, organization string
	var users []string
	c := &cobra.Command{
		Use:   "verify [ACTIVITY]",
		Short: "Check from the journal alone who approved and rejected what, off-line",
		Long: `Verifies the journal, and in it every approval and rejection: that its stamps are over
the message that was received, the message over the activity's bytes, and the
keys those of users as the journal told when they were made. With --user only
keys in these public files count. For each activity that was signed it checks that
the payload is the one that was approved, before its end, by the users named.
Needs no daemon, token or secret.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := database(cmd, db)
			if err != nil {
				return err
			}
			v := &votes{out: cmd.OutOrStdout(), organization: organization, activities: map[string]*decided{}, owners: map[string]string{}}
			if len(args) == 1 {
				v.only = args[0]
			}
			if len(users) > 0 {
				v.pinned = map[string]bool{}
				known, err := readCredentials(credential.ForUser, users)
				if err != nil {
					return err
				}
				for _, k := range known {
					v.pinned[k.PublicKey.ID()] = true
				}
			}
			if err := listEntries(cmd.Context(), path, v.entry); err != nil {
				return err
			}
			if v.only != "" && v.activities[v.only] == nil {
				return fmt.Errorf("verifying votes: the journal has no activity %s", v.only)
			}
			fmt.Fprintf(v.out, "%d activities, %d votes, %d signed: all verify\n", v.opens, v.count, v.signed)
			return nil
		},
	}
	c.Flags().StringVar(&db, "db", "", "the database `file`, or a copy of it; default: the configuration's")
	c.Flags().StringVar(&organization, "organization", "", "look at one organization only, by its `id`")
	c.Flags().StringArrayVar(&users, "user", nil, "public `FILE` of a key that counts; repeat for each")
	return c
}

// votes is what a walk through the journal found so far.
type votes struct {
	out                  io.Writer
	only, organization   string
	appliance            string
	pinned               map[string]bool
	activities           map[string]*decided
	owners               map[string]string // credential id → user, as the journal told
	opens, count, signed int
}

// decided is an activity and who approved it.
type decided struct {
	*signing.Activity
	bytes     []byte
	approvers map[string]bool
	rejected  bool
}

// The methods whose messages are votes.
const (
	approveMethod = "/sigil.v1.ActivityService/ApproveActivity"
	rejectMethod  = "/sigil.v1.ActivityService/RejectActivity"
)

// entry takes the next entry of a verified journal. The error names it.
func (v *votes) entry(e journal.Entry) error {
	err := v.look(e)
	if err != nil {
		return fmt.Errorf("entry %d: %w", e.Seq, err)
	}
	return nil
}

func (v *votes) look(e journal.Entry) error {
	switch {
	case e.Kind == journal.KindGenesis:
		v.appliance = e.Facts["appliance"]
	case e.Kind == journal.KindAct && e.User != "":
		v.register(e.Organization, e.User, "credential", e.Facts)
	case e.Kind == journal.KindAct && e.Facts["organization"] != "": // an organization that came with its users
		for _, who := range []string{"end_user", "delegated_user"} {
			if user := e.Facts[who]; user != "" {
				v.register(e.Facts["organization"], user, who+".credential", e.Facts)
			}
		}
	}
	id := e.Facts[signing.FactActivity]
	if id == "" || v.only != "" && id != v.only || v.organization != "" && e.Organization != v.organization {
		return nil
	}
	switch {
	case e.Kind == journal.KindActivity:
		return v.opened(e)
	case e.Kind == journal.KindAct && (e.Method == approveMethod || e.Method == rejectMethod):
		return v.vote(e)
	case e.Kind == journal.KindApproved:
		return v.executed(e)
	}
	return nil
}

// register keeps the keys of a user that the journal tells of in facts called what, or
// what and a number.
func (v *votes) register(organization, user, what string, facts map[string]string) {
	for name, fact := range facts {
		words := strings.SplitN(fact, " ", 3)
		if name != what && !strings.HasPrefix(name, what+".") || len(words) < 2 {
			continue
		}
		raw, err := hex.DecodeString(words[1])
		if err != nil {
			continue
		}
		if k, err := credential.ParsePublicKey(credential.Algorithm(words[0]), raw); err == nil {
			v.owners[organization+"/"+k.ID()] = user
		}
	}
}

func (v *votes) opened(e journal.Entry) error {
	b, err := base64.StdEncoding.DecodeString(e.Facts[signing.FactActivityBytes])
	if err != nil {
		return fmt.Errorf("reading the activity: %w", err)
	}
	a, err := signing.ParseActivity(b)
	if err != nil {
		return fmt.Errorf("reading the activity: %w", err)
	}
	if a.ID != e.Facts[signing.FactActivity] || a.ApplianceID != v.appliance || a.Organization != e.Organization || a.RequestID != e.RequestID || v.activities[a.ID] != nil {
		return fmt.Errorf("activity %s is not that of its entry", a.ID)
	}
	v.activities[a.ID] = &decided{Activity: a, bytes: b, approvers: map[string]bool{}}
	v.opens++
	fmt.Fprintf(v.out, "%s  request %s of %s, until %s: %s\n", a.ID, a.RequestID, a.Requester, a.ExpiresAt.Format(time.RFC3339), printable([]byte(firstLine(a.Summary))))
	return nil
}

// vote verifies every stamp of an approval or rejection.
func (v *votes) vote(e journal.Entry) error {
	a := v.activities[e.Facts[signing.FactActivity]]
	if a == nil {
		return fmt.Errorf("a vote about activity %s, which nobody opened", e.Facts[signing.FactActivity])
	}
	message, err := base64.StdEncoding.DecodeString(e.Facts[delegation.FactVoteMessage])
	if err != nil {
		return fmt.Errorf("reading the vote: %w", err)
	}
	var shown []byte
	var organization string
	if e.Method == approveMethod {
		m := &sigilv1.ApproveActivityRequest{}
		err = proto.Unmarshal(message, m)
		shown, organization = m.GetActivity(), m.GetOrganizationId()
	} else {
		m := &sigilv1.RejectActivityRequest{}
		err = proto.Unmarshal(message, m)
		shown, organization = m.GetActivity(), m.GetOrganizationId()
	}
	if err != nil {
		return fmt.Errorf("reading the vote: %w", err)
	}
	if string(shown) != string(a.bytes) || organization != a.Organization {
		return fmt.Errorf("the vote is over other bytes than those of activity %s", a.ID)
	}
	word := "approved"
	if e.Method == rejectMethod {
		word, a.rejected = "rejected", true
	}
	for _, name := range slices.Sorted(maps.Keys(e.Facts)) {
		if !strings.HasPrefix(name, delegation.FactVoteStamp) {
			continue
		}
		stamp, err := credential.ParseStamp([]byte(e.Facts[name]))
		if err != nil {
			return err
		}
		key, n := stamp.PublicKey.ID(), strings.TrimPrefix(name, delegation.FactVoteStamp)
		var party *credential.RelyingParty
		if text := e.Facts[delegation.FactVoteParty+n]; text != "" {
			party = &credential.RelyingParty{}
			if err := json.Unmarshal([]byte(text), party); err != nil {
				return fmt.Errorf("reading the relying party of credential %s: %w", key, err)
			}
		}
		if _, err := stamp.VerifyAs(party, v.appliance, e.Method, message); err != nil || stamp.OrganizationID != a.Organization {
			return fmt.Errorf("the stamp of credential %s is not over this vote: %v", key, err)
		}
		// Who registered the key stands in the journal; keys that came otherwise are the
		// user's by the word of the vote's entry, unless --user pins them.
		user := e.Facts[delegation.FactVoteUser+n]
		if told := v.owners[a.Organization+"/"+key]; told != "" && user != "" && told != user {
			return fmt.Errorf("credential %s is of user %s, and voted as %s", key, told, user)
		} else if user == "" {
			user = told
		}
		if v.pinned != nil && !v.pinned[key] {
			return fmt.Errorf("credential %s is in no --user file", key)
		}
		if user == "" && e.Method == approveMethod {
			return fmt.Errorf("credential %s is of no user that the journal tells of", key)
		}
		if e.Method == approveMethod {
			a.approvers[user] = true
		}
		if v.count++; user == "" {
			user = "a root member"
		}
		fmt.Fprintf(v.out, "%s    %s by %s, credential %s, at %s\n", a.ID, word, user, key, stamp.IssuedAt.UTC().Format(time.RFC3339))
	}
	return nil
}

// executed holds an approval of the appliance to what people approved.
func (v *votes) executed(e journal.Entry) error {
	a := v.activities[e.Facts[signing.FactActivity]]
	switch {
	case a == nil:
		return fmt.Errorf("activity %s, which nobody opened, was executed", e.Facts[signing.FactActivity])
	case a.rejected:
		return fmt.Errorf("activity %s was executed after it was rejected", a.ID)
	case e.RequestID != a.RequestID || e.Delegation != a.Delegation || e.Wallet != a.Wallet:
		return fmt.Errorf("activity %s was executed for another request", a.ID)
	case !time.UnixMilli(e.TimeMS).Before(a.ExpiresAt):
		return fmt.Errorf("activity %s was executed after its end", a.ID)
	}
	for _, user := range strings.Fields(e.Facts["approvers"]) {
		if !a.approvers[user] {
			return fmt.Errorf("activity %s was executed by an approval of %s, who has given none", a.ID, user)
		}
	}
	what := "its payload is too long for the journal"
	if e.Asked != nil {
		d, err := signable.Decode(chains.Kind(e.Asked.Kind), e.Asked.Payload, signable.Signer{Chain: a.Chain, Address: a.Address}, signable.Interfaces{})
		if err != nil {
			return fmt.Errorf("decoding what was signed: %w", err)
		}
		if d.Kind != a.Kind || digestOfPayload(d) != a.PayloadDigest {
			return fmt.Errorf("under activity %s something else was signed", a.ID)
		}
		what = "the payload is the one that was shown"
	}
	v.signed++
	fmt.Fprintf(v.out, "%s    approved for signing at %s; %s\n", a.ID, time.UnixMilli(e.TimeMS).UTC().Format(time.RFC3339), what)
	return nil
}
