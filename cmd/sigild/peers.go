package main

import (
	"context"
	"fmt"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/link"
	"github.com/sigild/sigild/mpc"
)

// dialPeer opens a session with a configured appliance, in which we propose. The
// connection is for this session alone; done hangs up. apiKey, if not nil, goes with the
// opening, inside TLS; gRPC's buffer of it is beyond our reach.
func (k *keeper) dialPeer(ctx context.Context, name string, apiKey []byte) (_ mpc.Conn, done func(), err error) {
	for _, a := range k.cfg.Peer.Appliances {
		if a.Name != name {
			continue
		}
		if a.Socket == "" {
			return nil, nil, fmt.Errorf("peer %s has no socket in the configuration; hint: peer.appliances", name)
		}
		pin, err := link.ParsePin(a.Pin)
		if err != nil {
			return nil, nil, err
		}
		own, err := link.LentIdentity(func(use func([]byte) error) error { return delegation.PeerKey(k.vault, use) })
		if err != nil {
			return nil, nil, err
		}
		conn, err := own.Dial(a.Socket, pin)
		if err != nil {
			return nil, nil, err
		}
		ctx, cancel := context.WithCancel(ctx)
		frames, err := link.Open(ctx, conn, &sigilv1.SessionFrame{Content: &sigilv1.SessionFrame_OpenProposal{OpenProposal: &sigilv1.OpenProposal{WalletApiKey: apiKey}}})
		if err != nil {
			cancel()
			conn.Close()
			return nil, nil, err
		}
		return frames, func() { cancel(); conn.Close() }, nil
	}
	return nil, nil, fmt.Errorf("peer %s is not in the configuration", name)
}
