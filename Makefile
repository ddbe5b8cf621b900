# make help explains the targets. PKG narrows those that take packages:
# make race PKG=./internal/gate COUNT=100

PKG      ?= ./...
COUNT    ?= 1
FUZZTIME ?= 10s
BENCH    ?= .
ROUNDS   ?= 5
VERIFY   ?= 10m
KILLS    ?= 100
SOAK     ?= 30m

# ST1012 wants every error's name to begin with Err. Keep is an answer, not a
# failure, and is read at the place where it is returned.
STATICCHECK = go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 -checks inherit,-ST1012

.DEFAULT_GOAL := help
.PHONY: help test race fuzz verify bench lint format imports static vulnerabilities cross build clean

help: ## what the targets do
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: format ## everything that a change must pass: gofmt, vet, import rules, all tests under the race detector; installs a C compiler, PostgreSQL, PgBouncer, MariaDB, Redis, Node.js and ioredis if they are missing
	@scripts/databases
	@scripts/race vet ./...
	@scripts/race test -shuffle=on -timeout 20m ./...
	@scripts/clients
	@cd server/clients && ../../scripts/race vet ./... && ../../scripts/race test -shuffle=on -count=1 -timeout 5m ./...

race: ## the tests alone, under the race detector; PKG=./internal/gate COUNT=100 looks for rare failures
	@scripts/databases
	@scripts/race test -shuffle=on -count=$(COUNT) $(PKG)

fuzz: ## every fuzz target in turn, each for FUZZTIME (10s)
	@scripts/fuzz $(FUZZTIME) '$(PKG)'

verify: ## the long proofs: VERIFY (10m) of faults on each database, every sabotage, KILLS (100) of a writing program and of a server, a soak of SOAK (30m)
	@scripts/databases
	@scripts/verify $(VERIFY) $(KILLS) $(SOAK)

bench: ## Lockstep beside its rivals, in ROUNDS (5) interleaved rounds; BENCH=Hit chooses; results go to bench/results too
	@cd bench && go run ./paired -bench '$(BENCH)' -rounds $(ROUNDS)

lint: format imports static vulnerabilities cross ## gofmt, vet, staticcheck, known vulnerabilities, import rules, cross-compilation

format: ## is every file as gofmt writes it?
	@files=$$(gofmt -l .); [ -z "$$files" ] || { echo "not as gofmt writes them (gofmt -w . mends it):"; echo "$$files"; exit 1; }

imports: ## does every package import only what it may?
	@go test -count=1 ./tools/imports

static: ## vet and staticcheck, the other modules included: benchmarks, and the server's clients
	@go vet ./... && $(STATICCHECK) ./...
	@cd bench && go vet ./... && $(STATICCHECK) ./...
	@cd server/clients && go vet ./... && $(STATICCHECK) ./...

vulnerabilities: ## are there known vulnerabilities in what we depend on?
	@scripts/vulnerabilities

cross: ## does it compile for Linux, macOS and Windows, on amd64 and arm64?
	@scripts/cross

build: ## bin/lockstep, the command, for this machine
	@CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/lockstep

clean: ## removes what build made
	@rm -rf bin
