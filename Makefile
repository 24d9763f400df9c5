# ringcast: one plain Makefile.  make help
SHELL     := /bin/bash
CC        ?= cc
PREFIX    ?= /usr/local
BUILD     ?= build$(if $(SAN),-$(subst $(comma),-,$(SAN)),)
SAN       ?=
comma     := ,
PY        := /usr/bin/python3
LLHTTP    := /usr/share/llhttp
LLHTTP_H  := /usr/share/include/llhttp

CSTD      := -std=gnu17 -D_GNU_SOURCE
WARN      := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Werror
OPT       := $(if $(SAN),-O1 -g -fno-omit-frame-pointer -fsanitize=$(SAN) $(if $(findstring undefined,$(SAN)),-fno-sanitize-recover=undefined),-O2 -g)
INC       := -I. -isystem $(LLHTTP_H)
CFLAGS_RC := $(CSTD) $(WARN) $(OPT) $(INC) $(CFLAGS)
JEMALLOC  := $(if $(SAN),,-ljemalloc)
$(if $(SAN),,$(eval CFLAGS_RC += -DRC_JEMALLOC))
LIBS      := -lhiredis -lev -lwslay -lconfuse -lssl -lcrypto -lpthread -lm $(JEMALLOC)

SRC_COMMON := $(wildcard common/*.c)
SRC_SHM    := $(wildcard shm/*.c)
SRC_MASTER := $(wildcard master/*.c)
SRC_WORKER := $(wildcard worker/*.c)
SRC        := $(SRC_COMMON) $(SRC_SHM) $(SRC_MASTER) $(SRC_WORKER)
OBJ        := $(SRC:%.c=$(BUILD)/%.o)
OBJ_LLHTTP := $(BUILD)/llhttp/llhttp.o $(BUILD)/llhttp/api.o $(BUILD)/llhttp/http.o

.PHONY: all
all: $(BUILD)/ringcast

$(BUILD)/ringcast: $(OBJ) $(OBJ_LLHTTP)
	$(CC) $(CFLAGS_RC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_RC) -MMD -MP -c -o $@ $<

# Debian ships llhttp as C sources; they are compiled as they are, without our warnings.
$(BUILD)/llhttp/%.o: $(LLHTTP)/%.c
	@mkdir -p $(@D)
	$(CC) $(CSTD) $(OPT) -DLLHTTP_STRICT_MODE=1 -isystem $(LLHTTP_H) -c -o $@ $<

-include $(OBJ:.o=.d)
