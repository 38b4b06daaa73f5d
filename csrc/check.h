// SPDX-License-Identifier: Apache-2.0
//
// The one macro for checks at the boundary. Failures become Python's ValueError.
#pragma once

#include <sstream>
#include <stdexcept>

// D3_CHECK(n >= 0, "n must be >= 0, got " << n)
#define D3_CHECK(condition, message)          \
  do {                                        \
    if (!(condition)) {                       \
      std::ostringstream out;                 \
      out << message;                         \
      throw std::invalid_argument(out.str()); \
    }                                         \
  } while (false)
