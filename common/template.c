#include "common/template.h"
