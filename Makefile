# concur: one header, so nothing is built to use it; these targets run, test and install it.
#
# Only GNU make and a C++17 compiler are needed for `make run` and `make test`. Everything goes to $(BUILD). The lanes of
# `make ci` call this file again with another BUILD, CXX and CXXFLAGS, so one set of rules serves them all.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

ifeq ($(origin CXX),default)
CXX := g++
endif
BUILD ?= build
STD ?= c++17
CXXFLAGS ?= -O2
WARNINGS ?= -Wall -Wextra
LDFLAGS ?=
LDLIBS ?=
PREFIX ?= /usr/local
DESTDIR ?=
PYTHON ?= python3
# Seconds that one test program may take.
LIMIT ?= 300
# A program to run the tests under, qemu-aarch64 say.
RUNNER ?=
# 1: the header's bodies are compiled once, and the tests only declare (CONCUR_SEPARATE_COMPILATION). A third quicker to build.
SEPARATE ?=

# As many jobs as there are processors, unless the caller said otherwise. Which flags the caller gave is not seen in MAKEFLAGS
# while this file is read, but in the command line of make itself.
ifeq ($(MAKELEVEL),0)
ifeq ($(filter -j% --jobs%,$(shell ps -o args= -p $$PPID 2>/dev/null)),)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
endif
endif

compile = $(CXX) -std=$(STD) $(CXXFLAGS) $(WARNINGS) -pthread $(DOCTEST_FLAGS) -I. -Itests

TESTS ?= $(sort $(wildcard tests/test_*.cpp tests/model_*.cpp tests/explore_*.cpp tests/stress_*.cpp))
test_programs := $(TESTS:%.cpp=$(BUILD)/%)
test_support := $(sort $(wildcard tests/support/*.hpp))

version := $(shell sed -n 's/^.define CONCUR_VERSION_STRING "\(.*\)"/\1/p' src/base/config.hpp)

.PHONY: always help run test test-programs check bench fuzz ci amalgamate examples snippets install uninstall clean

help:
	@echo 'concur $(version)'
	@echo
	@echo '  make run         build the HTTP server example, drive it with real requests, stop it'
	@echo '  make test        build and run every test program; ends with "N passed, N failed"'
	@echo '  make check       the header is in step, the style holds, every way to compile it works; then the tests'
	@echo '  make ci          check, sanitizers, optimisation lanes, backends, other processors, mutants, meson'
	@echo '  make examples    build every example and compare what it prints with what it promises'
	@echo '  make snippets    compile and run the snippets of README.md and docs/, and compare likewise'
	@echo '  make bench       measure, against Go, Boost.Fiber and tokio where they are installed'
	@echo '  make fuzz        look for inputs that break the HTTP parser, the timers, programs of fibers; FUZZ="600 timers"'
	@echo '  make amalgamate  write concur.hpp from src/'
	@echo '  make install     copy the header and its pkg-config file below PREFIX=$(PREFIX)'
	@echo '  make clean       remove $(BUILD)/'
	@echo
	@echo 'Variables: CXX CXXFLAGS STD BUILD TESTS LIMIT AGAIN RUNNER SEPARATE PREFIX DESTDIR'

# --- the header ---

amalgamate:
	$(PYTHON) tools/amalgamate.py

# --- tests ---

# Says where doctest is: empty when the compiler finds it by itself.
$(BUILD)/doctest.mk: tools/get_doctest.sh
	@mkdir -p $(@D)
	@CXX='$(CXX)' sh tools/get_doctest.sh $(BUILD) > $@.tmp && mv $@.tmp $@

ifneq ($(filter test test-programs,$(MAKECMDGOALS)),)
-include $(BUILD)/doctest.mk
endif

$(BUILD)/tests/support/doctest_main.o: tests/support/doctest_main.cpp $(BUILD)/settings | $(BUILD)/doctest.mk
	@mkdir -p $(@D)
	@echo '  compile $<'
	@$(compile) -c $< -o $@

# With SEPARATE these still hold their own bodies: they look into them, or set what the bodies are compiled with.
whole_tests := test_io test_stack test_timed_mutex test_weak_memory model_weak_memory
ifneq ($(SEPARATE),)
bodies := $(BUILD)/concur.o $(BUILD)/explore_concur.o
endif
bodies_of = $(BUILD)/$(if $(filter explore_%,$(notdir $@)),explore_)concur.o
separate = $(if $(SEPARATE),$(if $(filter $(whole_tests),$(notdir $@)),,-DCONCUR_SEPARATE_COMPILATION $(bodies_of)))
# Explorations interrupt threads at each atomic operation, which only such a build lets them do. One build serves for all
# planted bugs: tests/explore/run.py chooses.
choosing = $(if $(findstring CONCUR_MUTANT=,$(CXXFLAGS)),,-DCONCUR_MUTANT_CHOSEN)
explored = $(if $(filter explore_%,$(notdir $@)),-DCONCUR_EXPLORE $(choosing))

$(BUILD)/concur.o $(BUILD)/explore_concur.o: tools/concur.cpp concur.hpp $(BUILD)/settings
	@mkdir -p $(@D)
	@echo '  compile $<'
	@$(compile) $(explored) -c $< -o $@

$(BUILD)/tests/%: tests/%.cpp concur.hpp $(test_support) $(BUILD)/tests/support/doctest_main.o $(BUILD)/settings $(bodies)
	@mkdir -p $(@D)
	@echo '  compile $<'
	@rm -f $@
	@$(compile) $(separate) $(explored) $< $(BUILD)/tests/support/doctest_main.o -o $@ $(LDFLAGS) $(LDLIBS)

# Holds the compiler and its flags, and is younger than what was built with others.
$(BUILD)/settings: always
	@mkdir -p $(@D)
	@echo '$(compile) $(SEPARATE) $(LDFLAGS) $(LDLIBS)' | cmp -s - $@ || \
	  echo '$(compile) $(SEPARATE) $(LDFLAGS) $(LDLIBS)' > $@

# The runner is always built for this machine, also when the tests are for another one.
HOST_CXX ?= $(CXX)
$(BUILD)/run_tests: tools/run_tests.cpp
	@mkdir -p $(@D)
	@$(HOST_CXX) -std=c++17 -O1 -Wall -Wextra $< -o $@

test-programs: $(test_programs)

# A program that does not compile is then missing, and counts as failed; the others still run.
test: $(BUILD)/run_tests
	-@$(MAKE) --no-print-directory -k test-programs
	@$(BUILD)/run_tests --limit $(LIMIT) $(if $(RUNNER),--under '$(RUNNER)') $(if $(AGAIN),--again) $(test_programs)

# --- everything that must hold ---

check: export CXX := $(CXX)
check: export BUILD := $(BUILD)
check:
	@bash tools/stages.sh check

ci: export BUILD := $(BUILD)
ci:
	@bash tools/stages.sh ci

examples:
	@CXX='$(CXX)' BUILD='$(BUILD)' bash tools/run_examples.sh

snippets:
	@CXX='$(CXX)' BUILD='$(BUILD)' $(PYTHON) tools/run_snippets.py

run:
	@CXX='$(CXX)' BUILD='$(BUILD)' bash examples/run_demo.sh

bench:
	@CXX='$(CXX)' BUILD='$(BUILD)' $(PYTHON) bench/run.py $(BENCH)

fuzz:
	@CXX='$(CXX)' BUILD='$(BUILD)' bash tests/fuzz/run.sh $(FUZZ)

# --- installing ---

install:
	install -d $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/share/pkgconfig
	install -m 644 concur.hpp $(DESTDIR)$(PREFIX)/include/concur.hpp
	printf '%s\n' 'prefix=$(PREFIX)' 'includedir=$${prefix}/include' '' 'Name: concur' \
	  'Description: Fibers, channels and a reactor for C++17 in one header' 'Version: $(version)' \
	  'Cflags: -I$${includedir} -pthread' 'Libs: -pthread' > $(DESTDIR)$(PREFIX)/share/pkgconfig/concur.pc

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/include/concur.hpp $(DESTDIR)$(PREFIX)/share/pkgconfig/concur.pc

clean:
	rm -rf $(BUILD)
