package signing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
)

// Parties elsewhere: a share set of which another process holds a share, the owner's
// device or another appliance. The ten steps are the same. Whoever opens the session
// has shown a pinned key in place of a wallet API key, or, an appliance to which a
// delegate's share was delivered, both; and both sides decode and judge
// the payload by their own policy before the first protocol message: the proposer in
// steps 5 to 7 before it proposes, the acceptor in its own 5 to 7 before it accepts.

// Together is the other process of a request; the zero value is none.
type Together struct {
	// Party is who opened the session, a device's id or "peer/" and a name: it is
	// authenticated by its pinned key. "" for a caller with a wallet API key.
	Party string
	// Conn reaches it.
	Conn mpc.Conn
	// Offer is its proposal, when it made one; else we propose.
	Offer *mpc.Offer
}

// join opens step 9's session with the other process; nil when all parties are here.
// apiKey goes with a proposal of ours. done ends the session.
func (s *Service) join(ctx context.Context, a *approved, apiKey []byte) (j *mpc.Joint, done func(error), err error) {
	st, with := a.standing, a.request.Together
	if len(st.Elsewhere) == 0 {
		return nil, func(error) {}, nil
	}
	if with.Offer != nil {
		if j, err = with.Offer.Accept(ctx); err != nil {
			return nil, nil, err
		}
		return j, j.Close, nil
	}
	hangUp := func() {}
	if with.Conn == nil {
		if s.cfg.Dial == nil {
			return nil, nil, fmt.Errorf("%w: no peer is configured", mpc.ErrGone)
		}
		if with.Conn, hangUp, err = s.cfg.Dial(ctx, st.Peer, apiKey); err != nil {
			return nil, nil, fmt.Errorf("%w: dialing peer %s: %w", mpc.ErrGone, st.Peer, err)
		}
	}
	j, err = mpc.Propose(ctx, with.Conn, proposal(a))
	if err != nil {
		hangUp()
		return nil, nil, err
	}
	return j, func(err error) { j.Close(err); hangUp() }, nil
}

// proposal is what we ask the other process to sign.
func proposal(a *approved) mpc.Proposal {
	st, digest := a.standing, mpc.InputDigest(a.decoded.Sign)
	return mpc.Proposal{
		Op: mpc.OpSign, Engine: mpc.EngineOf(st.Set), Key: st.Wallet.Key, Wallet: st.Wallet.ID, Name: st.Wallet.Name, From: &st.Set,
		FromProposer: st.Here, FromAcceptor: st.Elsewhere, Chain: st.Wallet.Chain, Kind: a.request.Kind, Payload: a.request.Payload,
		Digest: digest[:], Path: st.Wallet.Path, Decision: fmt.Sprintf("%s/%d", a.request.ID, a.sequence),
	}
}

// checkOffer says whether an offered signature is the one that this request asks for:
// same set, same parties, same digest, same path. The other side's decoding of the
// payload must be ours.
func checkOffer(r Request, st *Standing, d *chains.Decoded) error {
	o := r.Together.Offer
	if o == nil {
		return nil
	}
	digest := mpc.InputDigest(d.Sign)
	switch {
	case o.Op != mpc.OpSign || o.From == nil || !sameSet(*o.From, st.Set):
		return refusal.New(refusal.RequestInvalid, "the proposal is not for a share set of this wallet")
	case !slices.Equal(o.FromProposer, st.Elsewhere) || !slices.Equal(o.FromAcceptor, st.Here):
		return refusal.New(refusal.RequestInvalid, "the proposal gives the parties other places")
	case string(o.Digest) != string(digest[:]) || !slices.Equal(o.Path, st.Wallet.Path):
		return refusal.New(refusal.PayloadMalformed, "the proposal's digest or path is not what its payload and this wallet give")
	}
	return nil
}

func sameSet(a, b mpc.ShareSet) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// refusedElsewhere makes a refusal of the other side's no; nil for other errors.
func refusedElsewhere(err error) *refusal.Error {
	var no *mpc.RefusedError
	if !errors.As(err, &no) {
		return nil
	}
	if strings.HasPrefix(no.Text, string(refusal.RateLimited)+": ") { // it begins with the other side's reason
		e := refusal.New(refusal.RateLimited, "the other party of this wallet is busy; ask again with the same request_id")
		e.After = time.Second
		return e
	}
	return refusal.New(refusal.PolicyDenied, "the other party of this wallet refuses: %s", no.Text).With("rule", "elsewhere")
}
