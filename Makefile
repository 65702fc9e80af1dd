# alloy: the one build file.
#
#   make            build/alloy and build/liballoy.{a,so}
#   make demo       convert the demo model, run it, pictures in build/demo/
#   make test       every test that needs no outside data
#   make bench      figures, each beside the machine's own ceiling
#   make check      what CI adds: sanitizers, both compilers, architecture, fuzzing
#
# BUILD=dir puts everything elsewhere; CC=clang, SAN=address,undefined, OPT=-O1 and V=1 do what they say.

BUILD ?= build
OPT   ?= -O2
SAN   ?=
V     ?=
Q     := $(if $(V),,@)
MAKEFLAGS += --no-builtin-rules

all: $(BUILD)/alloy $(BUILD)/liballoy.so
.PHONY: all

# ---- set-up: finds or installs the system packages, writes compiler and linker flags ----------------------------------
$(BUILD)/config.mk: tools/setup.sh
	$(Q)mkdir -p $(@D)
	$(Q)CC="$(CC)" bash tools/setup.sh $@
ifeq ($(filter clean help,$(MAKECMDGOALS)),)
include $(BUILD)/config.mk
endif

ARCH   := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
WARN   := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-unused-parameter $(WERROR)
CFLAGS_ALL = -std=c17 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 $(OPT) -g -fPIC -fvisibility=hidden -pthread -MMD -MP \
             -fno-math-errno -ffp-contract=off $(WARN) -Iinclude -Isrc -I$(BUILD)/gen $(PKG_CFLAGS) $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer) $(CFLAGS)
LINK   = $(CC) -pthread $(if $(SAN),-fsanitize=$(SAN)) $(LDFLAGS)

# ---- what there is: folders are lists, nothing is named twice -----------------------------------------------------------
isa_files = $(foreach i,$(1),$(wildcard src/*/*_$(i).c src/*/*/*_$(i).c))
X86_FILES := $(call isa_files,avx2 avxvnni avx512 vnni amx)
ARM_FILES := $(call isa_files,neon dotprod i8mm)
SKIP_ISA  := $(if $(filter x86_64,$(ARCH)),,$(X86_FILES)) $(if $(filter aarch64 arm64,$(ARCH)),,$(ARM_FILES))
SRC    := $(filter-out $(SKIP_ISA),$(wildcard src/*.c src/*/*.c src/*/*/*.c))
OBJC   := $(if $(findstring apple,$(shell $(CC) -dumpmachine)),$(wildcard src/*/*.m))
PROTO  := $(wildcard src/*/*.proto)
GEN    := $(patsubst src/%.proto,$(BUILD)/gen/%.pb-c.c,$(PROTO))
OBJ    := $(SRC:%.c=$(BUILD)/%.o) $(GEN:%.c=%.o) $(OBJC:%.m=$(BUILD)/%.o)
CLI    := $(wildcard cli/*.c)

flags_avx2    := -mavx2 -mfma -mf16c -mbmi2
flags_avxvnni := $(flags_avx2) -mavxvnni
flags_avx512  := $(flags_avx2) -mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl -mprefer-vector-width=512
flags_vnni    := $(flags_avx512) -mavx512vnni
flags_dotprod := -march=armv8.2-a+dotprod
flags_i8mm    := -march=armv8.2-a+dotprod+i8mm
isa_of = $(lastword $(subst _, ,$(basename $(notdir $(1)))))

$(BUILD)/%.o: %.c $(BUILD)/config.mk | $(GEN)
	$(Q)mkdir -p $(@D)
	$(if $(V),,@echo "  cc $<")
	$(Q)$(CC) $(CFLAGS_ALL) $(flags_$(call isa_of,$<)) -c $< -o $@
$(BUILD)/%.o: %.m $(BUILD)/config.mk
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -fobjc-arc $(filter-out -std=c17 -Wpedantic,$(CFLAGS_ALL)) -c $< -o $@
$(BUILD)/gen/%.pb-c.c: src/%.proto $(BUILD)/config.mk
	$(Q)mkdir -p $(BUILD)/gen
	$(Q)$(PROTOC_C) -Isrc --c_out=$(BUILD)/gen $<
$(GEN:%.c=%.o): %.o: %.c
	$(Q)$(CC) $(filter-out -W%,$(CFLAGS_ALL)) -w -c $< -o $@

$(BUILD)/liballoy.a: $(OBJ)
	$(Q)rm -f $@
	$(Q)ar rcs $@ $(OBJ)
$(BUILD)/liballoy.so: $(OBJ)
	$(Q)$(LINK) -shared -o $@ $(OBJ) $(PKG_LIBS)
$(BUILD)/alloy: $(CLI:%.c=$(BUILD)/%.o) $(BUILD)/liballoy.a
	$(Q)$(LINK) -o $@ $^ $(PKG_LIBS)

# ---- tests: tests/FOLDER/test_*.c are cmocka programs over the static library; tests/*/test_*.sh are scripts --------------
TEST_SRC := $(wildcard tests/test_*.c tests/*/test_*.c)
TEST_BIN := $(TEST_SRC:%.c=$(BUILD)/%)
TEST_LIB := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))
TEST_SH  := $(sort $(wildcard tests/test_*.sh tests/*/test_*.sh))
.SECONDARY: $(TEST_SRC:%.c=$(BUILD)/%.o)
$(TEST_BIN): $(BUILD)/%: $(BUILD)/%.o $(TEST_LIB) $(BUILD)/liballoy.a
	$(Q)$(LINK) -o $@ $^ $(PKG_LIBS) $(TEST_LIBS)
tests: $(TEST_BIN)
test: all tests
	$(Q)BUILD=$(BUILD) bash tests/run.sh $(TEST_BIN) $(TEST_SH)
.PHONY: tests test

# ---- fuzzing (clang): tests/fuzz/fuzz_*.c ----------------------------------------------------------------------------------
FUZZ := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
fuzzers:
	$(Q)$(MAKE) BUILD=$(BUILD)/fuzz CC=clang SAN=fuzzer-no-link,address,undefined OPT=-O1 $(FUZZ:%=$(BUILD)/fuzz/%)
$(FUZZ:%=$(BUILD)/%): $(BUILD)/%: $(BUILD)/tests/fuzz/%.o $(BUILD)/liballoy.a
	$(Q)clang -pthread -fsanitize=fuzzer,address,undefined -o $@ $^ $(PKG_LIBS)
.PHONY: fuzzers

# ---- bench ---------------------------------------------------------------------------------------------------------------------
BENCH_BIN := $(patsubst %.c,$(BUILD)/%,$(wildcard bench/*.c))
$(BENCH_BIN): $(BUILD)/%: $(BUILD)/%.o $(BUILD)/liballoy.a
	$(Q)$(LINK) -o $@ $^ $(PKG_LIBS) -ldl
bench: all $(BENCH_BIN)
	$(Q)for b in $(filter $(BUILD)/bench/bench_%,$(BENCH_BIN)); do $$b || exit 1; done
.PHONY: bench

demo: all
	$(Q)BUILD=$(BUILD) bash demo/demo.sh
check:
	$(Q)bash .ci/run
clean:
	rm -rf $(BUILD)
help:
	@sed -n '3,9p' Makefile | sed 's/^# *//'
.PHONY: demo check clean help

-include $(OBJ:.o=.d) $(CLI:%.c=$(BUILD)/%.d) $(BENCH_BIN:%=%.d) $(TEST_SRC:%.c=$(BUILD)/%.d) $(TEST_LIB:.o=.d) $(FUZZ:%=$(BUILD)/tests/fuzz/%.d)
