# ringcast: one plain Makefile.  make help
#
# Everything that is built lands in $(BUILD): build/ for the plain build, build-address-undefined/ and so on
# with SAN=.  A change of a header, of a flag or of the list of files rebuilds what depends on it.
SHELL     := /bin/bash
CC        ?= cc
PREFIX    ?= /usr/local
SAN       ?=
comma     := ,
BUILD     ?= build$(if $(SAN),-$(subst $(comma),-,$(SAN)),)
PY        := /usr/bin/python3
LLHTTP    := /usr/share/llhttp
LLHTTP_H  := /usr/share/include/llhttp

# V=1 shows the commands as they run.
Q   := $(if $(V),,@)
say  = @$(if $(V),:,printf '  %-6s %s\n' $(1) $@)

# ---- flags

CSTD      := -std=gnu17 -D_GNU_SOURCE
WARN      := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Werror
# TSan does not know fences: gcc warns of each. What they order here is accessed by atomics (shm/ring.h, R2 and C2),
# so that is not taken for a race.
SAN_FLAGS := -O1 -g -fno-omit-frame-pointer -fsanitize=$(SAN) \
             $(if $(findstring undefined,$(SAN)),-fno-sanitize-recover=undefined) \
             $(if $(findstring thread,$(SAN)),-Wno-tsan)
OPT       := $(if $(SAN),$(SAN_FLAGS),-O2 -g)
INC       := -I. -isystem $(LLHTTP_H)
# The sanitizers bring their own allocator, so jemalloc is left out of those builds.
JEMALLOC  := $(if $(SAN),,-ljemalloc)
CFLAGS_RC := $(CSTD) $(WARN) $(OPT) $(INC) $(if $(SAN),,-DRC_JEMALLOC) $(CFLAGS)
LIBS      := -lhiredis -lev -lwslay -lconfuse -ljansson -lssl -lcrypto -lpthread -lm $(JEMALLOC)

# ---- the server

SRC_COMMON := $(wildcard common/*.c)
SRC_SHM    := $(wildcard shm/*.c)
SRC_MASTER := $(wildcard master/*.c)
SRC_WORKER := $(wildcard worker/*.c)
SRC        := $(SRC_COMMON) $(SRC_SHM) $(SRC_MASTER) $(SRC_WORKER)
OBJ_COMMON := $(SRC_COMMON:%.c=$(BUILD)/%.o)
OBJ        := $(SRC:%.c=$(BUILD)/%.o)
OBJ_LLHTTP := $(BUILD)/llhttp/llhttp.o $(BUILD)/llhttp/api.o $(BUILD)/llhttp/http.o

.DEFAULT_GOAL := all
.PHONY: all
all: $(BUILD)/ringcast ## build the server: build/ringcast

$(BUILD)/ringcast: $(OBJ) $(OBJ_LLHTTP) $(BUILD)/files
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_RC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIBS)

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CFLAGS_RC) -MMD -MP -c -o $@ $<

# Debian ships llhttp as C sources; they are compiled as they are, without our warnings.
$(BUILD)/llhttp/%.o: $(LLHTTP)/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CSTD) $(OPT) -DLLHTTP_STRICT_MODE=1 -isystem $(LLHTTP_H) -c -o $@ $<

# Files that change only when what they record changes: the flags, and which files make the server.
$(BUILD)/flags: RECORD = $(CC) $(CFLAGS_RC) $(LDFLAGS) $(LIBS)
$(BUILD)/files: RECORD = $(OBJ)
$(BUILD)/flags $(BUILD)/files: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(RECORD)' | cmp -s - $@ || printf '%s\n' '$(RECORD)' >$@

.PHONY: FORCE
FORCE:

-include $(wildcard $(BUILD)/*/*.d $(BUILD)/*/*/*.d)

# ---- for people

# Unless the caller has said -j: one job for each CPU.
PARALLEL = $(if $(findstring j,$(filter-out --%,$(MAKEFLAGS))),,-j$(shell nproc))

.PHONY: run
run: ## install what is missing, build, serve the demo in the foreground
	@etc/install-packages.sh build run
	@$(MAKE) --no-print-directory $(PARALLEL) all
	@printf '%s\n' '' \
	  'ringcast starts in local mode with the demo namespace; Ctrl-C stops it. In other terminals:' '' \
	  '  listen:   /usr/bin/python3 -m websockets ws://127.0.0.1:8080/ws/a' \
	  '  publish:  curl -X POST http://127.0.0.1:8081/api/publish -d '\''{"channel":"demo:a","text":"hello"}'\' \
	  '  look:     curl http://127.0.0.1:8081/stats' ''
	@exec $(BUILD)/ringcast $(ARGS)

.PHONY: test
test: ## install what is missing, build, run every test
	@etc/install-packages.sh build run test
	@tests/run --build $(BUILD)

.PHONY: test-asan test-tsan
test-asan: ## unit tests, fuzz corpus and integration tests, all under ASan and UBSan
	@etc/install-packages.sh build run test
	@tests/run --build $(BUILD) --san address,undefined

test-tsan: ## unit tests and the ring's thread stress under TSan
	@etc/install-packages.sh build run test
	@tests/run --build $(BUILD) --san thread

.PHONY: install
install: all $(BUILD)/ringcast-bench ## install into $(DESTDIR)$(PREFIX)
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,sbin bin share/man/man8 share/man/man1) \
	  $(DESTDIR)$(PREFIX)/share/doc/ringcast $(DESTDIR)$(PREFIX)/share/doc/ringcast/examples
	install -m 755 $(BUILD)/ringcast $(DESTDIR)$(PREFIX)/sbin/ringcast
	install -m 755 $(BUILD)/ringcast-bench $(DESTDIR)$(PREFIX)/bin/ringcast-bench
	install -m 644 docs/ringcast.8 $(DESTDIR)$(PREFIX)/share/man/man8/
	$(if $(wildcard docs/*.1),install -m 644 $(wildcard docs/*.1) $(DESTDIR)$(PREFIX)/share/man/man1/)
	install -m 644 README.md LICENSE docs/*.md $(DESTDIR)$(PREFIX)/share/doc/ringcast/
	install -m 644 etc/*.conf etc/*.service $(DESTDIR)$(PREFIX)/share/doc/ringcast/examples/

.PHONY: clean
clean: ## remove all that was built
	rm -rf build build-*

# ---- unit tests
#
# The first lines of a test say what it links besides common/, and further libraries if it needs some:
#   /* LINK: worker/ws.c worker/ws_gate.c */            (or worker/%.c: all of a room)
#   /* LIBS: -ljansson */

UNIT      := $(wildcard tests/unit/test_*.c)
FUZZ      := $(wildcard tests/fuzz/fuzz_*.c)
UNIT_BIN  := $(UNIT:tests/unit/%.c=$(BUILD)/tests/%)
REPLAY    := $(FUZZ:tests/fuzz/fuzz_%.c=$(BUILD)/tests/replay_%)

# Words "FILE=KEY=word" for each word behind KEY: in the first 12 lines of FILE, to the end of that comment's list.
HEADS := $(if $(UNIT)$(FUZZ),$(shell awk 'FNR == 1 { key = "" } FNR <= 12 { \
	for (i = 1; i <= NF; i++) { \
		if ($$i ~ /^(LINK|LIBS|COVER):$$/) key = substr($$i, 1, length($$i) - 1); \
		else if (key != "" && $$i ~ /^([a-z_]+\/)+([a-z0-9_]+|%)\.c$$|^-l[a-z0-9]+$$/) print FILENAME "=" key "=" $$i; \
		else if (!($$i == "*" && i == 1)) key = ""; } }' $(UNIT) $(FUZZ)))
head_words = $(patsubst $(1)=$(2)=%,%,$(filter $(1)=$(2)=%,$(HEADS)))
head_files = $(filter-out common/%,$(wildcard $(subst %,*,$(call head_words,$(1),LINK))))
head_objs  = $(patsubst %.c,$(2)/%.o,$(call head_files,$(1)))

# Libraries that are loaded later (libcurl) find a test's function in place of the C library's, too.
TEST_LD := -Wl,--as-needed -Wl,--export-dynamic-symbol=getaddrinfo

define unit_rule
$(BUILD)/tests/$(notdir $(1:.c=)): $(BUILD)/$(1:.c=.o) $(call head_objs,$(1),$(BUILD)) $(OBJ_COMMON) $(OBJ_LLHTTP)
	@mkdir -p $$(@D)
	$$(call say,LINK)
	$$(Q)$$(CC) $$(CFLAGS_RC) $$(LDFLAGS) -o $$@ $$(filter %.o,$$^) $$(TEST_LD) -lcmocka $(call head_words,$(1),LIBS) $$(LIBS)
endef
$(foreach t,$(UNIT),$(eval $(call unit_rule,$(t))))

.PHONY: units
units: $(UNIT_BIN) $(REPLAY) ## build the unit tests into $(BUILD)/tests/

# ---- fuzzing
#
# A fuzz target is built three times: for libFuzzer (with coverage), the same with its planted bug, and by the
# plain compiler with a driver that replays the seed corpus, which is what `make test` runs.  (Warnings: from that one.)

FUZZ_CC      := clang-14
FUZZ_SECONDS ?= 60
FUZZ_FLAGS   := $(CSTD) -w -O1 -g -fno-omit-frame-pointer $(INC) \
                -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined
FUZZ_COVER   := -fprofile-instr-generate -fcoverage-mapping
FUZZ_BIN     := $(FUZZ:tests/fuzz/%.c=$(BUILD)/fuzz/%)
FUZZ_PLANT   := $(FUZZ:tests/fuzz/%.c=$(BUILD)/fuzz-plant/%)
HEADERS      := $(wildcard common/*.h shm/*.h master/*.h worker/*.h bench/*.h tests/fuzz/*.h)
FUZZ_LIBS     = -Wl,--as-needed $(filter-out -ljemalloc,$(LIBS))
LLHTTP_C     := $(OBJ_LLHTTP:$(BUILD)/llhttp/%.o=$(LLHTTP)/%.c)

define fuzz_rule
$(BUILD)/tests/replay_$(patsubst fuzz_%.c,%,$(notdir $(1))): $(BUILD)/$(1:.c=.o) $(BUILD)/tests/fuzz/replay.o \
		$(call head_objs,$(1),$(BUILD)) $(OBJ_COMMON) $(OBJ_LLHTTP)
	@mkdir -p $$(@D)
	$$(call say,LINK)
	$$(Q)$$(CC) $$(CFLAGS_RC) $$(LDFLAGS) -o $$@ $$(filter %.o,$$^) -Wl,--as-needed $(call head_words,$(1),LIBS) $$(LIBS)
$(BUILD)/fuzz/$(notdir $(1:.c=)): $(1) $(call head_files,$(1)) $(SRC_COMMON) $(HEADERS)
	@mkdir -p $$(@D)
	$$(call say,FUZZ)
	$$(Q)$$(FUZZ_CC) $$(FUZZ_FLAGS) $$(FUZZ_COVER) -o $$@ $$(filter %.c,$$^) $(LLHTTP_C) $(call head_words,$(1),LIBS) $$(FUZZ_LIBS)
	@printf '%s\n' $(or $(call head_words,$(1),COVER),$(call head_words,$(1),LINK)) >$$@.cover
$(BUILD)/fuzz-plant/$(notdir $(1:.c=)): $(1) $(call head_files,$(1)) $(SRC_COMMON) $(HEADERS)
	@mkdir -p $$(@D)
	$$(call say,FUZZ)
	$$(Q)$$(FUZZ_CC) $$(FUZZ_FLAGS) -DFUZZ_PLANT_BUG -o $$@ $$(filter %.c,$$^) $(LLHTTP_C) $(call head_words,$(1),LIBS) $$(FUZZ_LIBS)
endef
$(foreach t,$(FUZZ),$(eval $(call fuzz_rule,$(t))))

.PHONY: fuzz fuzz-selftest
fuzz: ## fuzz each target for a minute, two at a time (FUZZ_SECONDS=60)
	@etc/install-packages.sh build fuzz
	@$(MAKE) --no-print-directory $(PARALLEL) $(FUZZ_BIN)
	@tests/fuzz/run $(BUILD) $(FUZZ_SECONDS)

fuzz-selftest: ## each target covers 80 % of its module and finds its planted bug
	@etc/install-packages.sh build fuzz
	@$(MAKE) --no-print-directory $(PARALLEL) $(FUZZ_BIN) $(FUZZ_PLANT)
	@tests/fuzz/run --selftest $(BUILD) $(FUZZ_SECONDS)

# ---- care of the sources

TIDY_SRC := $(SRC) $(wildcard bench/*.c)
ALL_C    := $(TIDY_SRC) $(UNIT) $(wildcard tests/*/*.c)

.PHONY: format lint
format: ## clang-format every C file in place
	@etc/install-packages.sh lint
	clang-format -i $(sort $(ALL_C) $(wildcard */*.h tests/*/*.h))

lint: ## the project's own rules, cppcheck, clang-tidy
	@etc/install-packages.sh build lint
	@tests/lint
	@$(MAKE) -s -j2 -k $(BUILD)/cppcheck/ok $(TIDY_SRC:%.c=$(BUILD)/tidy/%.ok)
	@echo 'lint: ok'

# Two checks of cppcheck's cry wolf: leaks (it does not understand compound literals) and what callees do with an
# uninitialised argument (filling it in is what they are for). ASan and clang's analyzer look for both.
$(BUILD)/cppcheck/ok: $(TIDY_SRC) $(HEADERS)
	$(call say,CHECK)
	@mkdir -p $(@D)
	$(Q)cppcheck -q -j2 --std=c11 --language=c --enable=warning,performance,portability --inline-suppr \
	  --suppress=missingIncludeSystem --suppress=memleak --suppress=ctuuninitvar \
	  --error-exitcode=1 -I. $(TIDY_SRC)
	@touch $@

# clang-tidy takes seconds a file, so what is unchanged is not looked at again; the object knows its headers.
$(BUILD)/tidy/%.ok: $(BUILD)/%.o .clang-tidy
	$(call say,TIDY)
	@mkdir -p $(@D)
	$(Q)clang-tidy --quiet $*.c -- $(CSTD) $(INC) -DHAVE_LIBURING 2>$@.log || { cat $@.log; exit 1; }
	@touch $@

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@printf '%s\n' '' '  SAN=address,undefined or SAN=thread builds with sanitizers into a directory of its own;' \
	  '  BUILD= names another build directory, CFLAGS= and LDFLAGS= are added to ours, V=1 shows commands.'

# ---- bench

BENCH_LOAD  := $(wildcard bench/load*.c) bench/hist.c bench/hdr.c bench/payload.c bench/track.c \
               bench/wsin.c bench/proc.c
BENCH_FLOOR := $(wildcard bench/floor*.c) bench/payload.c
BENCH_RING  := $(wildcard bench/ring*.c)
# io_uring is an extra of the floor program alone, left out where liburing is not installed.
BENCH_URING := $(if $(wildcard /usr/include/liburing.h),-luring)
BENCH_BIN   := $(BUILD)/ringcast-bench $(BUILD)/bench-floor $(BUILD)/bench-ring $(BUILD)/bench-intake

$(BUILD)/bench/floor_uring.o: CFLAGS_RC += $(if $(BENCH_URING),-DHAVE_LIBURING)
$(BUILD)/ringcast-bench: $(BENCH_LOAD:%.c=$(BUILD)/%.o) $(OBJ_COMMON)
$(BUILD)/ringcast-bench: BENCH_LIBS = -lz
$(BUILD)/bench/load_html.o: bench/report.html
$(BUILD)/bench-floor: $(BENCH_FLOOR:%.c=$(BUILD)/%.o) $(OBJ_COMMON)
$(BUILD)/bench-floor: BENCH_LIBS = $(BENCH_URING)
$(BUILD)/bench-ring: $(BENCH_RING:%.c=$(BUILD)/%.o) $(SRC_SHM:%.c=$(BUILD)/%.o) $(OBJ_COMMON)
$(BUILD)/bench-intake: $(BUILD)/bench/intake.o $(BUILD)/bench/wsin.o $(OBJ_COMMON)
$(BENCH_BIN):
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_RC) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--as-needed $(BENCH_LIBS) $(filter-out -ljemalloc,$(LIBS))

.PHONY: bench-programs bench bench-feeds bench-intake bench-selftest
bench-programs: $(BENCH_BIN) ## build them: build/ringcast-bench, bench-floor, bench-ring, bench-intake

bench-selftest: $(BUILD)/ringcast-bench ## does the load client see planted faults, and report what it saw?
	@$(PY) bench/selftest.py $(BUILD)
	@$(PY) bench/selftest_options.py $(BUILD)
	@$(PY) bench/selftest_report.py $(BUILD)

bench: ## ringcast beside the floor program, nine pairs of everything (40 minutes; ARGS="--only C1 --pairs 3")
	@etc/install-packages.sh build run test bench
	@$(MAKE) --no-print-directory all bench-programs
	@$(PY) bench/run.py --build $(BUILD) $(ARGS)

bench-intake: ## what the master takes from Redis, beside a bare hiredis subscriber (3 minutes)
	@etc/install-packages.sh build run test
	@$(MAKE) --no-print-directory all bench-programs
	@$(PY) bench/intake.py --build $(BUILD) $(ARGS)

bench-feeds: ## the feeds beside the original's manager, and one among many (about 12 minutes)
	@etc/install-packages.sh build run test
	@$(MAKE) --no-print-directory all
	@$(PY) bench/feeds.py --build $(BUILD) $(ARGS)

# ---- shm tests
#
# The model explores the shipped ring code, compiled with its accesses replaced by steps of a memory machine
# (tests/model/machine.h); a mutant is the same with one ordering weakened, moved or ignored.

MODEL_DIR   := $(BUILD)/model
MODEL_FLAGS := $(CSTD) $(WARN) -O2 -g -I. -DSHM_MODEL
MODEL_SRC   := $(wildcard tests/model/*.c) shm/ring.c shm/record.c shm/uplink.c
MODEL_OBJ   := $(MODEL_SRC:%.c=$(MODEL_DIR)/%.o)

$(MODEL_DIR)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(MODEL_FLAGS) -MMD -MP -c -o $@ $<

$(MODEL_DIR)/model: $(MODEL_OBJ)
	$(call say,LINK)
	$(Q)$(CC) -o $@ $^

-include $(wildcard $(MODEL_DIR)/*/*.d $(MODEL_DIR)/*/*/*.d)

.PHONY: model model-all mutants
model: $(MODEL_DIR)/model ## explore all interleavings and stale reads of the ring code (half a minute)
	@$(MODEL_DIR)/model

model-all: $(MODEL_DIR)/model ## the same with larger scopes (an hour)
	@$(MODEL_DIR)/model --all

mutants: $(MODEL_DIR)/model ## does the model notice each ordering that is weakened?
	@tests/model/mutants $(MODEL_DIR)

# Processes with this build's flags; threads over one mapping with TSan.

STRESS_SECONDS ?= 5
STRESS_TSAN    := $(BUILD)/stress-tsan
STRESS_SRC     := $(wildcard tests/stress/*.c) $(addprefix shm/,ring.c record.c uplink.c slot.c seg.c)

$(STRESS_TSAN)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CSTD) $(WARN) -Wno-tsan -O1 -g -fsanitize=thread -I. -MMD -MP -c -o $@ $<

$(STRESS_TSAN)/stress: $(STRESS_SRC:%.c=$(STRESS_TSAN)/%.o)
	$(call say,LINK)
	$(Q)$(CC) -fsanitize=thread -o $@ $^ -lpthread

$(BUILD)/tests/stress-ring: $(STRESS_SRC:%.c=$(BUILD)/%.o)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_RC) $(LDFLAGS) -o $@ $^ -lpthread

-include $(wildcard $(STRESS_TSAN)/*/*.d $(STRESS_TSAN)/*/*/*.d)

.PHONY: stress
stress: $(BUILD)/tests/stress-ring $(STRESS_TSAN)/stress ## the ring under load, as processes and as threads (STRESS_SECONDS=5)
	@status=0; $(BUILD)/tests/stress-ring --seconds $(STRESS_SECONDS) $(ARGS) || status=1; \
	$(STRESS_TSAN)/stress --threads --seconds $(STRESS_SECONDS) $(ARGS) || status=1; exit $$status
