package server

import (
	"context"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
)

// Handler of status.proto: it answers sealed or not.

type statusService struct {
	sigilv1.UnimplementedStatusServiceServer
	a *Appliance
}

func (s statusService) GetStatus(context.Context, *sigilv1.GetStatusRequest) (*sigilv1.GetStatusResponse, error) {
	st := s.a.state.Load()
	if st.parts == nil {
		out := &sigilv1.GetStatusResponse{Version: s.a.version, Sealed: true, SealedReason: &st.why, Anchor: "none"}
		if st.guard != nil {
			out.ApplianceId = &st.guard.ApplianceID // operators' stamps need it
		}
		return out, nil
	}
	out := st.parts.Status()
	id := st.parts.Delegation.ApplianceID()
	out.Version, out.ApplianceId = s.a.version, &id
	if p := st.parts.Delegation.Paused(delegation.Scope{}); p != nil {
		out.Paused = pauseMessage(*p)
	}
	if own, err := st.parts.Identity(); err == nil {
		out.PeerPin = own.Pin().String()
	}
	all, host := st.parts.Delegation.Custody()
	out.Keys, out.KeysInHostCustody = uint32(all), uint32(host)
	return out, nil
}
