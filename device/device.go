package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/signable"
	"github.com/sigild/sigild/link"
	"github.com/sigild/sigild/mpc"
)

// What both sides confirm at the end of a ceremony that makes shares; package
// delegation has the same words.
const (
	confirmReceipt   = "receipt"
	confirmCommitted = "committed"
)

// Approve is asked before the device takes part in anything: its error, if any, is
// what the other side is told. It may ask a person.
type Approve func(p Proposed) error

// Proposed is what the device is asked to do, for people.
type Proposed struct {
	mpc.Proposal
	// Decoded is what a signature would be for; nil for other operations.
	Decoded *chains.Decoded
}

// Device takes part in the ceremonies of its appliance.
type Device struct {
	file *File
	conn *grpc.ClientConn
	now  func() time.Time
}

// Dial prepares calls to the appliance's door. Close ends them; the file is the caller's.
func Dial(f *File) (*Device, error) {
	id, appliance, address := f.Where()
	if id == "" {
		return nil, errors.New("the device is not registered; hint: sigilctl device register")
	}
	pin, err := link.ParsePin(appliance)
	if err != nil {
		return nil, err
	}
	own, err := f.Identity()
	if err != nil {
		return nil, err
	}
	d := &Device{file: f, now: time.Now}
	switch network, at, _ := strings.Cut(address, ":"); network {
	case "unix":
		d.conn, err = own.Dial(at, pin)
	case "tcp":
		d.conn, err = own.DialTCP(at, pin)
	default:
		err = fmt.Errorf("the appliance's address is %q, want unix: and a path, or tcp: and host:port", address)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Close ends the connection.
func (d *Device) Close() error { return d.conn.Close() }

// Pending asks what waits, and brings the file up to what the appliance says counts.
func (d *Device) Pending(ctx context.Context) (*sigilv1.ListPendingResponse, error) {
	answer, err := sigilv1.NewPeerServiceClient(d.conn).ListPending(ctx, &sigilv1.ListPendingRequest{})
	if err != nil {
		return nil, err
	}
	return answer, d.file.settle(answer.GetLiveSets(), d.now())
}

// Join takes part in a ceremony that waits. When it returns without an error the
// share, if there is one, counts. An error leaves the ceremony waiting, or Pending
// says what has become of it.
func (d *Device) Join(ctx context.Context, ceremony string, approve Approve) error {
	frames, done, err := d.open(ctx, &sigilv1.SessionFrame{Content: &sigilv1.SessionFrame_Join{Join: &sigilv1.JoinCeremony{CeremonyId: ceremony}}})
	if err != nil {
		return err
	}
	defer done()
	o, err := mpc.ReadOffer(ctx, frames)
	if err != nil {
		return frames.Why(err)
	}
	if err := d.consider(o, ceremony, approve); err != nil {
		return errors.Join(err, o.Refuse(ctx, err.Error()))
	}
	j, err := o.Accept(ctx)
	if err != nil {
		return frames.Why(err)
	}
	err = d.make(ctx, j)
	j.Close(err)
	return frames.Why(err)
}

// consider says whether a proposal is for what waits and gives us the user's place.
func (d *Device) consider(o *mpc.Offer, ceremony string, approve Approve) error {
	user := []mpc.Party{mpc.User}
	from := o.From == nil || slices.Equal(o.FromAcceptor, user) && d.holds(o.From) != nil
	to := o.To == nil || len(o.ToAcceptor) == 0 || slices.Equal(o.ToAcceptor, user)
	switch {
	case o.Decision != ceremony || o.Op == mpc.OpSign:
		return errors.New("the proposal is not for the ceremony that was joined")
	case !from || !to:
		return errors.New("the proposal is for a set of which this device has no share, or gives it another place")
	case o.Op == mpc.OpRotate && (len(o.ToAcceptor) != 1 || o.To.Threshold < o.From.Threshold):
		return errors.New("the proposal would take the key from this device")
	case o.Op == mpc.OpKeygen && len(o.ToAcceptor) != 1:
		return errors.New("the proposal gives this device no share")
	}
	return approve(Proposed{Proposal: o.Proposal})
}

// holds finds the share of a set.
func (d *Device) holds(set *mpc.ShareSet) *Share {
	return d.file.share(func(s Share) bool { return s.Set == set.ID && s.State != Ended })
}

// make runs a keygen, an issue or a rotation. The share is on disk before the receipt.
func (d *Device) make(ctx context.Context, j *mpc.Joint) error {
	p := j.Proposal()
	var set mpc.ShareSet
	var shares []*mpc.Share
	var err error
	if p.Op == mpc.OpKeygen {
		set, shares, err = mpc.Keygen(ctx, mpc.KeygenRequest{SetID: p.To.ID, Scheme: p.To.Scheme, Parties: p.To.Parties, Threshold: p.To.Threshold, With: j})
	} else {
		r := mpc.IssueRequest{From: *p.From, Quorum: [][]byte{d.holds(p.From).Encoded}, SetID: p.To.ID, Parties: p.To.Parties, Threshold: p.To.Threshold, With: j}
		run := mpc.Issue
		if p.Op == mpc.OpRotate {
			run = mpc.Rotate
		}
		set, shares, err = run(ctx, r)
	}
	if err != nil {
		return err
	}
	for _, sh := range shares { // one, or none: ours
		keep := Share{Set: set.ID, Key: p.Key, Wallet: p.Wallet, Name: p.Name, Chain: p.Chain, State: Pending, MadeAt: d.now().UTC()}
		err := sh.Lend(func(b []byte) error { keep.Encoded = bytes.Clone(b); return nil })
		sh.Destroy()
		if err == nil {
			err = d.file.add(keep)
		}
		if err == nil {
			err = j.Confirm(ctx, confirmReceipt, []byte(set.ID))
		}
		if err != nil {
			return err
		}
	}
	if err := j.Confirm(ctx, confirmCommitted, []byte(set.ID)); err != nil {
		return fmt.Errorf("the ceremony came to its end, but not the word that it counts; hint: sigilctl device pending: %w", err)
	}
	if len(shares) == 0 {
		return nil
	}
	for i := range d.file.contents.Shares {
		s := &d.file.contents.Shares[i]
		switch {
		case s.Set == set.ID:
			s.State = Live
		case s.Key == p.Key && s.State == Live:
			s.State = Ended // the other side destroyed its half
		}
	}
	return d.file.save()
}

// Sign signs a payload with the appliance. It is decoded here, approve sees what it
// means, and the appliance's policy must allow it, too. Asking again with the same
// request id gives the same answer.
func (d *Device) Sign(ctx context.Context, r *sigilv1.SignRequest, kind chains.Kind, payload []byte, approve Approve) (*sigilv1.SignResponse, error) {
	share := d.file.share(func(s Share) bool { return s.Wallet == r.GetWalletId() && s.State == Live })
	if share == nil {
		return nil, fmt.Errorf("this device has no share of wallet %s that counts; hint: sigilctl device pending", r.GetWalletId())
	}
	set, _, err := mpc.DescribeShare(share.Encoded)
	if err != nil {
		return nil, err
	}
	address, err := signable.AddressOf(share.Chain, set.PublicKey)
	if err != nil {
		return nil, err
	}
	decoded, err := signable.Decode(kind, payload, signable.Signer{Chain: share.Chain, Address: address}, signable.Interfaces{})
	if err != nil {
		return nil, fmt.Errorf("decoding what is to be signed: %w", err)
	}
	if err := approve(Proposed{Proposal: mpc.Proposal{Op: mpc.OpSign, Wallet: share.Wallet, Name: share.Name, Chain: share.Chain, Kind: kind}, Decoded: decoded}); err != nil {
		return nil, err
	}
	frames, done, err := d.open(ctx, &sigilv1.SessionFrame{Content: &sigilv1.SessionFrame_OpenSignature{OpenSignature: &sigilv1.OpenSignature{Request: r}}})
	if err != nil {
		return nil, err
	}
	defer done()
	o, err := mpc.ReadOffer(ctx, frames)
	if errors.Is(err, link.ErrNoFrame) { // a stored answer comes without a session
		return frames.Signed(ctx)
	}
	if err != nil {
		return nil, frames.Why(err)
	}
	digest := mpc.InputDigest(decoded.Sign)
	if o.Op != mpc.OpSign || o.From.ID != set.ID || !slices.Equal(o.FromAcceptor, []mpc.Party{mpc.User}) || !bytes.Equal(o.Digest, digest[:]) || len(o.Path) > 0 || !bytes.Equal(o.Payload, payload) {
		err := errors.New("the appliance proposes to sign something else")
		return nil, errors.Join(err, o.Refuse(ctx, err.Error()))
	}
	j, err := o.Accept(ctx)
	if err != nil {
		return nil, frames.Why(err)
	}
	_, err = mpc.Sign(ctx, mpc.SignRequest{Set: set, Shares: [][]byte{share.Encoded}, Input: decoded.Sign, With: j})
	j.Close(err)
	if err != nil {
		return nil, frames.Why(err)
	}
	return frames.Signed(ctx)
}

// open begins a session.
func (d *Device) open(ctx context.Context, opening *sigilv1.SessionFrame) (*link.Frames, func(), error) {
	ctx, cancel := context.WithCancel(ctx)
	frames, err := link.Open(ctx, d.conn, opening)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return frames, cancel, nil
}
