# Each target is one readable line or a script; everything but `make test` also works by typing the go command.
TOOL = go tool -modfile=deploy/tools/go.mod

.PHONY: help build test faults bench lint vuln generate

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

build: ## the one binary, at bin/starling
	go build -trimpath -o bin/starling ./cmd/starling

test: ## install what is missing, start services, run everything with -race
	./deploy/test.sh

faults: ## the long rows of the fault matrix, on 20 network namespaces; about half an hour, needs root
	CI=true go test ./deploy/hosts -run 'Faults|CloneOfALivingAgent|AddressChanges' -faults -v -timeout 60m

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
