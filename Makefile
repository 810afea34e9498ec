# Every command does the set-up that it needs; see scripts/.

# Go's version stamp asks git, which refuses in a checkout of another user.
export GOFLAGS += -buildvcs=false

.PHONY: help build build-rados run test unit lint demo bench packages release setup clean

help:
	@echo "make run     build odx and serve two disks on 127.0.0.1:3260 (odx.yaml, ./odx-data)"
	@echo "make demo    copy 1 GiB from LUN to LUN by reading and writing, and by token"
	@echo "make test    run every test, or STAGES=\"unit e2e\"; ends in a summary"
	@echo "make bench   measure against tgtd and qemu-img on this machine"
	@echo "make build   build bin/odx"
	@echo "make build-rados  build bin/odx-rados, with Ceph (librados-dev, a C compiler)"
	@echo "make unit    only the fast tests"
	@echo "make lint    only gofmt, go vet, staticcheck and golangci-lint"
	@echo "make packages  build the deb and rpm packages into bin/packages"
	@echo "make release   build what a release has into bin/release"
	@echo "make setup   install missing Debian packages"

build:
	@scripts/build

build-rados:
	@scripts/build-rados

run: build
	@exec bin/odx serve --config odx.yaml --write-default

test:
	@scripts/test $(STAGES)

unit:
	@go run ./scripts/runtests unit

lint:
	@go run ./scripts/runtests format vet staticcheck lint

demo: setup build
	@go run ./test/demo

bench: setup build
	@go run ./bench
	@go run ./bench/virtualdisks -size 2GiB
	@go run ./bench/peers

packages:
	@scripts/package

release:
	@scripts/release

setup:
	@scripts/setup

clean:
	rm -rf bin
