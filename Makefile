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
VERSION    ?= $(shell git describe --tags --always --dirty)
KUBE_DIR   ?= /tmp/castellan-kube

.PHONY: help build up helm test e2e e2e-all kube-build kube-up kube-down image lint generate bench clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

build: ## build bin/castellan and bin/castellan-controlplane
	@$(beat) "building bin/castellan" go build -o bin/castellan ./cmd/castellan
	@$(beat) "building bin/castellan-controlplane (the first time this compiles Kubernetes and takes minutes)" \
		go -C controlplane build -ldflags '$(ldflags)' -o ../bin/castellan-controlplane ./cmd/castellan-controlplane

up: build ## start a Kafka cluster on this machine (ARGS="--nodes 1 --detach" and so on)
	@exec bin/castellan up $(ARGS)

helm:
	@$(beat) "building helm, which the chart is rendered with" go -C test/kube build \
		-ldflags '-s -w -X helm.sh/helm/v3/internal/version.version=$(shell sed -n 's/^.*helm.sh\/helm\/v3 \(v[^ ]*\).*/\1/p' test/kube/go.mod)' -o ../../bin/helm helm.sh/helm/v3/cmd/helm

# Stories that would make `make test` too long; `make e2e-all` tells them.
long_stories := ^Test(SixNodes|Scale|Controllers|LogDirs|Operations|Clients)$$

test: build helm ## build what tests need and pass all of them, on real Kafka
	@test/install-tools
	@$(slow_beat) "compiling everything" go build ./...
	@$(slow_beat) "testing the control plane" go -C controlplane test -timeout 15m ./...
	@$(slow_beat) "testing the images" go -C images test -timeout 5m ./...
	@$(slow_beat) "testing the Kubernetes of the tests" go -C test/kube test -vet=off -timeout 15m ./internal/...
	@$(slow_beat) "testing the main module, one package at a time: some run real Kafka" go test -p 1 -timeout 40m $$(go list ./... | grep -vE '/test/e2e(/kube)?$$')
	@$(slow_beat) "telling stories on real Kafka" go test -timeout 60m -skip '$(long_stories)' ./test/e2e

kube-build: helm ## build bin/testkube, a real Kubernetes of several machines on this one, and helm
	@test/kube/install-tools
	@$(slow_beat) "building a Kubernetes to test on (the first time this takes minutes)" go -C test/kube build -ldflags '$(ldflags)' -o ../../bin/ ./cmd/...

kube-up: kube-build ## start that Kubernetes (needs root); its kubeconfig is KUBE_DIR/kubeconfig
	@bin/testkube up --dir $(KUBE_DIR)

kube-down: ## end that Kubernetes
	@bin/testkube down --dir $(KUBE_DIR)

e2e: build kube-build ## tell the stories on a real Kubernetes (needs root)
	@$(slow_beat) "stories on a real Kubernetes" go test -count 1 -timeout 40m -run '^TestKube' ./test/e2e/kube

e2e-all: build kube-build ## tell also the long stories, and those of that Kubernetes itself
	@test/install-tools clients
	@$(slow_beat) "long stories on real Kafka" go test -count 1 -timeout 90m -run '$(long_stories)' ./test/e2e
	@$(slow_beat) "testing testkube" go -C test/kube test -vet=off -count 1 -timeout 30m ./e2e
	@$(slow_beat) "all stories on a real Kubernetes" go test -count 1 -timeout 120m ./test/e2e/kube

image: ## make Castellan's image for two architectures in dist/, without a container engine (VERSION=... names it)
	@for arch in amd64 arm64; do \
		$(slow_beat) "building castellan for linux/$$arch" env GOOS=linux GOARCH=$$arch \
			go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/linux-$$arch/castellan ./cmd/castellan; \
	done
	@$(beat) "building castellan-images" go -C images build -o ../bin/castellan-images ./cmd/castellan-images
	@bin/castellan-images castellan --version '$(VERSION)' --revision "$$(git rev-parse HEAD)" --doc LICENSE --doc NOTICE --out dist \
		--binary linux/amd64=bin/linux-amd64/castellan --binary linux/arm64=bin/linux-arm64/castellan

lint: bin/tools/.built ## lint all modules, import rules included, and check generated code
	@$(slow_beat) "linting the main module" $(lint) ./...
	@cd controlplane && ../$(slow_beat) "linting the control plane" $(lint) ./...
	@cd images && ../$(slow_beat) "linting the images" $(lint) ./...
	@cd test/kube && ../../$(slow_beat) "linting the Kubernetes of the tests, but for what is Kubernetes itself" $(lint) ./internal/... ./e2e
	@new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; \
	bin/tools/controller-gen object $(crds) paths=./api/... output:crd:dir="$$new" output:object:dir="$$new"; \
	diff -r <(cd api/crds && sha256sum *.yaml) <(cd "$$new" && sha256sum *.yaml) && cmp {api/v1alpha1,"$$new"}/zz_generated.deepcopy.go \
		|| { echo "generated code is older than api/v1alpha1: run 'make generate'" >&2; exit 1; }

generate: bin/tools/.built helm ## regenerate deepcopy, CRDs, manifests, key tables, package locks and the TLS engine's jar
	@bin/tools/controller-gen object $(crds) paths=./api/... output:crd:dir=api/crds
	@go test ./deploy -update
	@$(beat) "key tables, from Kafka itself" go generate ./core/kconf
	@$(beat) "package locks for Kafka $(locked)" go run ./hack/packagelock -out packages/locks $(locked)
	@$(beat) "the TLS engine" node/sslengine/build.sh

bench: build kube-build ## print figures and hold them against their bounds
	@go test -run '^$$' -bench . -benchtime 1x ./api/crds
	@$(slow_beat) "on one core" go test -run '^$$' -bench . -benchtime 3x -cpu 1 -timeout 30m ./core/plan
	@$(slow_beat) "plans of balances, on one core" go test -run '^$$' -bench . -benchtime 1x -cpu 1 -timeout 30m ./core/balance
	@$(slow_beat) "one operator with a hundred clusters" go test -run '^$$' -bench . -benchtime 1x -timeout 60m ./operator
	@$(slow_beat) "on a real Kubernetes" go test -run '^$$' -bench . -benchtime 1x -timeout 30m ./test/e2e/kube
	@$(slow_beat) "on real Kafka, five minutes of rest and ten thousands of topics and users included" go test -run '^$$' -bench . -benchtime 1x -timeout 90m ./test/e2e

clean: ## remove what was built
	rm -rf bin dist

bin/tools/.built: tools/go.mod tools/go.sum
	@$(beat) "building the tools (golangci-lint, controller-gen)" go -C tools build -o ../bin/tools/ tool
	@touch $@
