package server

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/refusal"
)

// methods lists every method of every service of package sigil.v1.
func methods(t *testing.T) map[string]protoreflect.MethodDescriptor {
	t.Helper()
	out := map[string]protoreflect.MethodDescriptor{}
	protoregistry.GlobalFiles.RangeFilesByPackage("sigil.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			svc := file.Services().Get(i)
			for j := range svc.Methods().Len() {
				m := svc.Methods().Get(j)
				out[fmt.Sprintf("/%s/%s", svc.FullName(), m.Name())] = m
			}
		}
		return true
	})
	check := healthpb.File_grpc_health_v1_health_proto.Services().ByName("Health").Methods().ByName("Check")
	out["/grpc.health.v1.Health/Check"] = check
	if len(out) < 12 {
		t.Fatalf("the API has %d methods, want at least the 12 of its first day", len(out))
	}
	return out
}

func TestEveryMethodHasOneRow(t *testing.T) {
	api := methods(t)
	seen := map[string]bool{}
	for _, row := range table {
		if seen[row.method] {
			t.Errorf("%s has two rows", row.method)
		}
		seen[row.method] = true
		m, ok := api[row.method]
		if !ok {
			t.Errorf("%s has a row and is not in the API", row.method)
			continue
		}
		if row.socket == 0 || row.role == 0 {
			t.Errorf("%s: nobody can call it", row.method)
		}
		if (row.by == byStamps || row.by == byEither) != (row.stamps != 0) {
			t.Errorf("%s: takes %s and wants stamps of %q", row.method, row.by, row.stamps)
		}
		if row.maxBytes <= 0 || row.maxBytes > (Limits{}).withDefaults().MessageBytes {
			t.Errorf("%s: takes %d bytes", row.method, row.maxBytes)
		}
		if row.deadline < 0 || row.deadline > (Limits{}).withDefaults().MaxDeadline {
			t.Errorf("%s: deadline %s", row.method, row.deadline)
		}
		f := m.Input().Fields().ByName("organization_id")
		if wants := row.stamps != 0 && row.stamps != operators; wants != (f != nil && f.Kind() == protoreflect.StringKind) {
			t.Errorf("%s: stamped for an organization %v, names one in the message %v", row.method, wants, f != nil)
		}
	}
	for method, m := range api {
		if _, peers := peerMethods[method]; peers {
			continue // another door, which wraps nothing (TestPeerDoorServesItsMethods)
		}
		if !seen[method] {
			t.Errorf("%s has no row", method)
		}
		if m.IsStreamingClient() || m.IsStreamingServer() {
			t.Errorf("%s streams; the wrapper knows unary calls only", method)
		}
	}
}

// tableOf returns the cells of the first table in a document whose header begins with first.
func tableOf(t *testing.T, path, first string) [][]string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	inside := false
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		switch {
		case !inside && strings.HasPrefix(line, "| "+first+" |"):
			inside = true
		case inside && !strings.HasPrefix(line, "|"):
			return rows
		case inside && !strings.HasPrefix(line, "|---"):
			cells := strings.Split(strings.Trim(line, "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			rows = append(rows, cells)
		}
	}
	return rows
}

func TestPeerDoorServesItsMethods(t *testing.T) {
	var want [][]string
	for _, m := range sigilv1.PeerService_ServiceDesc.Methods {
		want = append(want, []string{"PeerService/" + m.MethodName, peerMethods["/sigil.v1.PeerService/"+m.MethodName]})
	}
	for _, m := range sigilv1.PeerService_ServiceDesc.Streams {
		want = append(want, []string{"PeerService/" + m.StreamName, peerMethods["/sigil.v1.PeerService/"+m.StreamName]})
	}
	got := tableOf(t, "../docs/authority.md", "call")
	if len(want) != len(peerMethods) || !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("docs/authority.md says %v, the door %v with %d methods", got, want, len(peerMethods))
	}
}

func TestAuthorityDocumentSaysTheSame(t *testing.T) {
	got := tableOf(t, "../docs/authority.md", "method")
	var want [][]string
	for _, row := range table {
		want = append(want, []string{
			strings.TrimPrefix(row.method, "/sigil.v1."), row.socket.String(), row.role.String(), row.by.String(),
			row.stamps.String(), fmt.Sprintf("%d KiB", row.maxBytes/kib),
		})
	}
	if len(got) != len(want) {
		t.Errorf("docs/authority.md has %d rows, the table has %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if !slices.Equal(got[i], want[i]) {
			t.Errorf("row %d of docs/authority.md\n got %q\nwant %q", i+1, got[i], want[i])
		}
	}
}

func TestRolesDefaultToNobody(t *testing.T) {
	const status, sign, create = "/sigil.v1.StatusService/GetStatus", "/sigil.v1.SigningService/Sign", "/sigil.v1.OrganizationService/CreateOrganization"
	roles := Roles{
		App:      Holders{UIDs: []uint32{1001}},
		Operator: Holders{UIDs: []uint32{1002}, GIDs: []uint32{2000}},
		Auditor:  Holders{UIDs: []uint32{1003}},
	}
	rows := []struct {
		name   string
		roles  Roles
		caller Caller
		at     socket
		method string
		want   bool
	}{
		{"no roles at all", Roles{}, Caller{UID: 1001}, onApp, status, false},
		{"root without a role", roles, Caller{UID: 0}, onApp, status, false},
		{"root without a role signs", roles, Caller{UID: 0}, onApp, sign, false},
		{"app looks", roles, Caller{UID: 1001}, onApp, status, true},
		{"app signs", roles, Caller{UID: 1001}, onApp, sign, true},
		{"app signs on admin.sock", roles, Caller{UID: 1001}, onAdmin, sign, false},
		{"app makes organizations", roles, Caller{UID: 1001}, onAdmin, create, false},
		{"operator makes organizations", roles, Caller{UID: 1002}, onAdmin, create, true},
		{"operator by gid", roles, Caller{UID: 5, GID: 2000}, onAdmin, create, true},
		{"operator on the wrong socket", roles, Caller{UID: 1002}, onApp, create, false},
		{"operator signs", roles, Caller{UID: 1002}, onApp, sign, false},
		{"auditor looks", roles, Caller{UID: 1003}, onAdmin, status, true},
		{"auditor signs", roles, Caller{UID: 1003}, onApp, sign, false},
		{"no such method", roles, Caller{UID: 1001}, onApp, "/sigil.v1.SigningService/SignAll", false},
		{"empty method", roles, Caller{UID: 1001}, onApp, "", false},
		{"nobody", Roles{App: Holders{GIDs: []uint32{7}}}, Caller{UID: nobody, GID: 7}, onApp, sign, false},
	}
	for _, row := range rows {
		got, err := row.roles.admit(row.caller, row.at, row.method)
		if (err == nil) != row.want || (got != nil) != row.want {
			t.Errorf("%s: got %v, %v; want admitted %v", row.name, got, err, row.want)
		}
		if err != nil && !refusal.Is(err, refusal.CallerNotAllowed) {
			t.Errorf("%s: got %v, want CALLER_NOT_ALLOWED", row.name, err)
		}
	}
	for _, bad := range []Roles{{App: Holders{UIDs: []uint32{nobody}}}, {Auditor: Holders{GIDs: []uint32{nobody}}}} {
		if _, err := New(Config{Roles: bad}, nil, Services{}); err == nil || !strings.Contains(err.Error(), "65534") {
			t.Errorf("a role for 65534: got %v", err)
		}
	}
}

func TestLimitsHaveDefaults(t *testing.T) {
	l := Limits{Streams: 3}.withDefaults()
	if l.Streams != 3 || l.MessageBytes != 1<<20 || l.HeaderBytes != 16<<10 || l.Connections != 256 || l.ConnectionsPerUID != 32 ||
		l.Handshake != 5*time.Second || l.Deadline != 10*time.Second || l.MaxDeadline != 30*time.Second || l.Stop == 0 || l.Idle == 0 {
		t.Errorf("got %+v", l)
	}
}
