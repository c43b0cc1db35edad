# Each target is one readable line or a script; everything but `make test` also works by typing the go command.
TOOL = go tool -modfile=deploy/tools/go.mod

.PHONY: help build test faults bench lint vuln generate

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

# With libseccomp's headers and archive (Debian: libseccomp-dev) the binary is static and filters the system calls of
# containers. Without them it does not, and says so; without a C compiler it has no containers, but plain processes.
SECCOMP = $(shell pkg-config --exists libseccomp 2>/dev/null && [ "$$(go env CGO_ENABLED)" = 1 ] && echo -tags netgo,osusergo,seccomp -ldflags=-extldflags=-static)

build: ## the one binary, at bin/starling
	go build -trimpath $(SECCOMP) -o bin/starling ./cmd/starling

test: ## install what is missing, start services, run everything with -race
	./deploy/test.sh

faults: ## the long rows of the fault matrix, on 20 network namespaces; an hour and more, needs root
	CI=true go test ./deploy/hosts -run 'Faults|CloneOfALivingAgent|AddressChanges' -faults -v -timeout 120m

bench: ## the figures that the project promises, with their budgets
	./deploy/bench/run.sh

lint: ## gofumpt, vet, staticcheck; the import rules are a test of package cmd
	go vet ./...
	$(TOOL) staticcheck -checks inherit,-ST1005 ./... # Mesos' error texts, which clients match, begin with capitals
	@mkdir -p bin && $(TOOL) gofumpt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$') >bin/unformatted
	@if [ -s bin/unformatted ]; then echo "not formatted (go tool -modfile=deploy/tools/go.mod gofumpt -w):"; cat bin/unformatted; exit 1; fi

vuln: ## known vulnerabilities in what we link; fetches the public database
	$(TOOL) govulncheck ./...

generate: ## protobuf; needs protoc (Debian: protobuf-compiler)
	go build -modfile=deploy/tools/go.mod -o bin/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
	PATH="$(CURDIR)/bin:$$PATH" go generate ./...
