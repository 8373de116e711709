# Castellan. `make help` lists the targets; the pinned tools of tools/ are built into bin/tools.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# No C compiler is needed, and builds, lint and tests share one build cache.
export CGO_ENABLED := 0

beat       := tools/heartbeat 8
slow_beat  := tools/heartbeat 30
kubernetes := $(shell sed -n 's/^\tk8s.io\/kubernetes v//p' controlplane/go.mod)
k8s        := $(subst ., ,$(kubernetes))
# Without these the API server reports v0.0.0, and kubectl refuses to compare versions with it.
version_of  = -X $(1).gitVersion=v$(kubernetes) -X $(1).gitMajor=$(word 1,$(k8s)) -X $(1).gitMinor=$(word 2,$(k8s)) -X $(1).gitTreeState=clean
ldflags    := -s -w $(call version_of,k8s.io/component-base/version) $(call version_of,k8s.io/client-go/pkg/version)
locked     := $(patsubst packages/locks/kafka-%.lock,%,$(wildcard packages/locks/kafka-*.lock))
lint       := $(CURDIR)/bin/tools/golangci-lint run --config $(CURDIR)/.golangci.yml
crds       := crd:maxDescLen=300

.PHONY: help build up test lint generate bench clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

build: ## build bin/castellan and bin/castellan-controlplane
	@$(beat) "building bin/castellan" go build -o bin/castellan ./cmd/castellan
	@$(beat) "building bin/castellan-controlplane (the first time this compiles Kubernetes and takes minutes)" \
		go -C controlplane build -ldflags '$(ldflags)' -o ../bin/castellan-controlplane ./cmd/castellan-controlplane

up: build ## start a Kafka cluster on this machine (ARGS="--nodes 1 --detach" and so on)
	@exec bin/castellan up $(ARGS)

test: build ## build what tests need and pass all of them, on real Kafka
	@test/install-tools
	@$(slow_beat) "compiling everything" go build ./...
	@$(slow_beat) "testing the control plane" go -C controlplane test -timeout 15m ./...
	@$(slow_beat) "testing the main module, one package at a time: many run real Kafka" go test -p 1 -timeout 40m ./...

lint: bin/tools/.built ## lint both modules, import rules included, and check generated code
	@$(slow_beat) "linting the main module" $(lint) ./...
	@cd controlplane && ../$(slow_beat) "linting the control plane" $(lint) ./...
	@new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; \
	bin/tools/controller-gen object $(crds) paths=./api/... output:crd:dir="$$new" output:object:dir="$$new"; \
	diff -r <(cd api/crds && sha256sum *.yaml) <(cd "$$new" && sha256sum *.yaml) && cmp {api/v1alpha1,"$$new"}/zz_generated.deepcopy.go \
		|| { echo "generated code is older than api/v1alpha1: run 'make generate'" >&2; exit 1; }

generate: bin/tools/.built ## regenerate deepcopy, CRDs, key tables, package locks and the TLS engine's jar
	@bin/tools/controller-gen object $(crds) paths=./api/... output:crd:dir=api/crds
	@$(beat) "key tables, from Kafka itself" go generate ./core/kconf
	@$(beat) "package locks for Kafka $(locked)" go run ./hack/packagelock -out packages/locks $(locked)
	@$(beat) "the TLS engine" node/sslengine/build.sh

bench: build ## print figures and hold them against their bounds
	@$(slow_beat) "on one core" go test -run '^$$' -bench . -benchtime 3x -cpu 1 -timeout 30m ./core/plan
	@$(slow_beat) "on real Kafka, five minutes of rest included" go test -run '^$$' -bench . -benchtime 1x -timeout 30m ./test/e2e

clean: ## remove what was built
	rm -rf bin

bin/tools/.built: tools/go.mod tools/go.sum
	@$(beat) "building the tools (golangci-lint, controller-gen)" go -C tools build -o ../bin/tools/ tool
	@touch $@
