// Vectorized matrix products: one micro-kernel for the small product of a step and for the large ones.
//
// The right side B (K, N) is packed in panels of COLUMNS columns, [panel][k][COLUMNS], with zeros after N. The left side
// is packed in blocks of at most DEPTH columns, either row by row with a constant pitch, which compiles to immediate
// offsets, or as [k][ROWS] if it is transposed. Each element is summed in the order of k for any number of rows, so a
// row's result doesn't depend on other rows.
//
// With HALF, both sides are rounded to bfloat16 when they are packed, two adjacent k in one unit, and their products are
// accumulated in float. Nothing else is rounded.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>
#include "lanes.h"
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int64_t VECTOR_BYTES = 64, ROWS = 14;  // 28 sums, 2 columns and a broadcast in 32 registers
#elif defined(__AVX__)
constexpr int64_t VECTOR_BYTES = 32, ROWS = 6;  // 12 sums in 16 registers
#elif defined(__aarch64__)
constexpr int64_t VECTOR_BYTES = 16, ROWS = 12;
#else
constexpr int64_t VECTOR_BYTES = 16, ROWS = 6;
#endif
constexpr int64_t LANES = VECTOR_BYTES / sizeof(R), VECTORS = 2, COLUMNS = VECTORS * LANES;
constexpr int64_t BLOCK = 112 / ROWS * ROWS;
typedef R Vector __attribute__((vector_size(VECTOR_BYTES)));
typedef Vector Loose __attribute__((aligned(sizeof(R)), may_alias));

#if defined(__AVX512F__)  // masked lanes don't access memory
INLINE unsigned first_lanes(int64_t count) { return count >= LANES ? ~0u : count > 0 ? (1u << count) - 1 : 0; }
#elif defined(__AVX__)
template <class Mask>
INLINE Mask first_lanes(int64_t count) {  // all bits of each; compiling the intrinsics' header takes a second
  static const int32_t numbers[] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
  Mask mask;
  std::memcpy(&mask, numbers + 8 - count * (8 / LANES), sizeof mask);
  return mask;
}
#endif

// Loads the first `count` of LANES numbers, followed by zeros.
INLINE Vector some(const R* from, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(R) == 4) return (Vector)_mm512_maskz_loadu_ps((__mmask16)first_lanes(count), from);
  else return (Vector)_mm512_maskz_loadu_pd((__mmask8)first_lanes(count), from);
#elif defined(__AVX__)
  if (count >= LANES) return *(const Loose*)from;
  if (count <= 0) return Vector{};
  typedef float Floats __attribute__((vector_size(32)));
  typedef double Doubles __attribute__((vector_size(32)));
  typedef int32_t Eight __attribute__((vector_size(32)));
  typedef long long Four __attribute__((vector_size(32)));
  if constexpr (sizeof(R) == 4)
    return (Vector)__builtin_ia32_maskloadps256((const Floats*)from, first_lanes<Eight>(count));
  else return (Vector)__builtin_ia32_maskloadpd256((const Doubles*)from, first_lanes<Four>(count));
#else
  Vector found = {};
  if (count > 0) std::memcpy(&found, from, std::min(count, LANES) * sizeof(R));
  return found;
#endif
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLES
// The lanes of two vectors in turn: those of their first halves, and of their second halves.
template <int... I>
INLINE void interleave(Vector a, Vector b, Vector& low, Vector& high, std::integer_sequence<int, I...>) {
  low = __builtin_shufflevector(a, b, (I % 2 * (int)LANES + I / 2)...);
  high = __builtin_shufflevector(a, b, (I % 2 * (int)LANES + (int)LANES / 2 + I / 2)...);
}
#endif
#endif

#ifdef HALF
constexpr int64_t GROUP = 2;
typedef uint32_t Unit;
typedef uint32_t Units __attribute__((vector_size(VECTOR_BYTES)));
INLINE uint32_t half(float x) {  // rounded to the nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return x != x ? 0x7FC0 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}
INLINE Unit unit(float low, float high) { return half(low) | half(high) << 16; }
INLINE Units side_by_side(Vector first, Vector second) {
  return (Units)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
}
INLINE Units pairs(Vector low, Vector high) {
  const __m512i order = (__m512i)(Units){0 | 16 << 16, 1 | 17 << 16, 2 | 18 << 16, 3 | 19 << 16, 4 | 20 << 16,
      5 | 21 << 16, 6 | 22 << 16, 7 | 23 << 16, 8 | 24 << 16, 9 | 25 << 16, 10 | 26 << 16, 11 | 27 << 16,
      12 | 28 << 16, 13 | 29 << 16, 14 | 30 << 16, 15 | 31 << 16};
  return (Units)_mm512_permutexvar_epi16(order, (__m512i)side_by_side(low, high));
}
INLINE Vector multiply_add(Vector sum, Unit left, Units right) {
  return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)left), (__m512bh)right);
}
#else
constexpr int64_t GROUP = 1;  // adjacent k in a unit
typedef R Unit;
typedef Vector Units;
INLINE Unit unit(R low, R) { return low; }
INLINE Units pairs(Vector low, Vector) { return low; }
INLINE Vector multiply_add(Vector sum, Unit left, Units right) { return sum + (left - Vector{}) * right; }
#endif
typedef Units LooseUnits __attribute__((aligned(sizeof(Unit)), may_alias));

constexpr int64_t LONG = 256, DEPTH = LONG * GROUP;  // units, and the numbers in them
constexpr int64_t PITCH = LONG + 16;                 // not a power of two, with which rows would share cache sets

template <class T>
struct Memory {  // freed at the end of its scope, not initialized
  T* at;
  explicit Memory(int64_t count) {
    size_t bytes = (size_t)(std::max<int64_t>(count, 1) * sizeof(T) + 63) / 64 * 64;
    at = (T*)std::aligned_alloc(64, bytes);
    if (!at) throw std::bad_alloc();
  }
  ~Memory() { std::free(at); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
};

INLINE int64_t units(int64_t depth) { return (depth + GROUP - 1) / GROUP; }
INLINE int64_t padded(int64_t columns) { return (columns + COLUMNS - 1) / COLUMNS * COLUMNS; }

// Transposes a square of vectors.
INLINE void transpose(Vector* square) {
#ifdef SHUFFLES
  Vector turned[LANES];
#pragma GCC unroll 4
  for (int64_t done = 1; done < LANES; done *= 2) {  // each round is a perfect shuffle of the vectors and of their lanes
#pragma GCC unroll 8
    for (int64_t i = 0; i < LANES / 2; i++)
      interleave(square[i], square[i + LANES / 2], turned[2 * i], turned[2 * i + 1],
                 std::make_integer_sequence<int, (int)LANES>());
#pragma GCC unroll 16
    for (int64_t i = 0; i < LANES; i++) square[i] = turned[i];
  }
#else
  for (int64_t i = 0; i < LANES; i++)
    for (int64_t j = 0; j < i; j++) {
      R kept = square[i][j];
      square[i][j] = square[j][i], square[j][i] = kept;
    }
#endif
}

// Loads LANES rows of a matrix (…, K), of which `width` exist, from column k on: square[i] has column k + i, or zeros.
INLINE void load_columns(const R* source, int64_t K, int64_t k, int64_t width, Vector* square) {
#pragma GCC unroll 16
  for (int64_t i = 0; i < LANES; i++) square[i] = i < width ? some(source + i * K + k, K - k) : Vector{};
  transpose(square);
}

// Packs a panel of adjacent rows of a matrix (…, K), of which `width` exist.
static void pack_rows(int64_t K, int64_t width, const R* source, R* panel) {
  for (int64_t j = 0; j < COLUMNS; j += LANES)
    for (int64_t k = 0; k < K; k += LANES) {
      Vector square[LANES];
      load_columns(source + j * K, K, k, width - j, square);
#pragma GCC unroll 16
      for (int64_t i = 0; i < LANES; i++)
        if (k + i < K) *(Loose*)(panel + (k + i) * COLUMNS + j) = square[i];
    }
}

// Packs the panels of thread `id` of `threads` of B (K, N), element (k, n) at source[k * step_k + n * step_n].
static void pack_panels(int64_t K, int64_t N, const R* source, int64_t step_k, int64_t step_n, Unit* packed, int id,
                        int threads) {
  for (int64_t n = id * COLUMNS; n < N; n += threads * COLUMNS) {
    Unit* panel = packed + n * units(K);
    int64_t width = std::min(COLUMNS, N - n);
    if constexpr (GROUP == 1)
      if (step_k == 1 && step_n == K) { pack_rows(K, width, source + n * K, (R*)panel); continue; }
    auto at = [&](int64_t k, int64_t j) { return j < width && k < K ? source[k * step_k + (n + j) * step_n] : R(0); };
    for (int64_t first = 0; first < K; first += 16)  // whole cache lines of a transposed source are read
      for (int64_t j = 0; j < COLUMNS; j++)
        for (int64_t k = first; k < std::min(first + 16, K); k += GROUP)
          panel[k / GROUP * COLUMNS + j] = unit(at(k, j), GROUP > 1 ? at(k + 1, j) : R(0));
  }
}

static void pack_row(const R* from, int64_t depth, Unit* to) {
#ifdef HALF
  for (int64_t k = 0; k < depth; k += 2 * LANES)  // a row of units has room for whole vectors
    *(LooseUnits*)(to + k / 2) = side_by_side(some(from + k, depth - k), some(from + k + LANES, depth - k - LANES));
#else
  std::memcpy(to, from, depth * sizeof(R));
#endif
}

// C (M, COLUMNS) = A (M, depth units) B + (start row, or C itself, or 0).
template <int M, int64_t STEP_ROW, int64_t STEP_K>
static void tile(int64_t depth, const Unit* a, const Unit* b, R* c, int64_t stride, const R* start, bool add) {
  Vector sum[M][VECTORS];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++)
      sum[m][v] = add ? *(const Loose*)(c + m * stride + v * LANES)
                      : start ? *(const Loose*)(start + v * LANES) : Vector{};
  for (int64_t k = 0; k < depth; k++) {
    Units right[VECTORS];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) right[v] = *(const LooseUnits*)(b + k * COLUMNS + v * LANES);
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) {
      Unit left = a[m * STEP_ROW + k * STEP_K];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; v++) sum[m][v] = multiply_add(sum[m][v], left, right[v]);
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) *(Loose*)(c + m * stride + v * LANES) = sum[m][v];
}

typedef void (*Tile)(int64_t, const Unit*, const Unit*, R*, int64_t, const R*, bool);
template <int64_t STEP_ROW, int64_t STEP_K>
static Tile tile_of(int64_t rows) {
  static const Tile tiles[] = {nullptr,
      tile<1, STEP_ROW, STEP_K>, tile<2, STEP_ROW, STEP_K>, tile<3, STEP_ROW, STEP_K>, tile<4, STEP_ROW, STEP_K>,
      tile<5, STEP_ROW, STEP_K>, tile<6, STEP_ROW, STEP_K>,
#if defined(__AVX512F__) || defined(__aarch64__)
      tile<7, STEP_ROW, STEP_K>, tile<8, STEP_ROW, STEP_K>, tile<9, STEP_ROW, STEP_K>, tile<10, STEP_ROW, STEP_K>,
      tile<11, STEP_ROW, STEP_K>, tile<12, STEP_ROW, STEP_K>,
#endif
#if defined(__AVX512F__)
      tile<13, STEP_ROW, STEP_K>, tile<14, STEP_ROW, STEP_K>,
#endif
  };
  return tiles[rows];
}

// One tile into C, of which only `width` columns exist.
static void put(Tile run, int64_t rows, int64_t depth, const Unit* a, const Unit* b, R* c, int64_t stride, int64_t width,
                const R* start, bool add) {
  if (width >= COLUMNS) return run(depth, a, b, c, stride, start, add);
  R whole[ROWS * COLUMNS];
  if (add)
    for (int64_t m = 0; m < rows; m++) std::copy_n(c + m * stride, width, whole + m * COLUMNS);
  run(depth, a, b, whole, COLUMNS, start, add);
  for (int64_t m = 0; m < rows; m++) std::copy_n(whole + m * COLUMNS, width, c + m * stride);
}

// C (M, N) = start + A B in one thread; A is a table of rows, B is packed, `start` has the width of the panels.
// C's rows have space for `room` >= N columns.
static void rows_times(int64_t M, const R* const* a, int64_t K, const Unit* packed, int64_t N, R* c, int64_t stride,
                       int64_t room, const R* start) {
  alignas(64) Unit left[BLOCK * PITCH];
  for (int64_t top = 0; top < M; top += BLOCK) {
    int64_t count = std::min(BLOCK, M - top), tiles = (count + ROWS - 1) / ROWS;
    for (int64_t first = 0; first < K || first == 0; first += DEPTH) {
      int64_t depth = std::min(DEPTH, K - first);
      for (int64_t m = 0; m < count; m++) pack_row(a[top + m] + first, depth, left + m * PITCH);
      for (int64_t n = 0; n < N; n += COLUMNS)
        for (int64_t t = 0; t < tiles; t++) {
          int64_t m0 = count * t / tiles, rows = count * (t + 1) / tiles - m0;
          put(tile_of<PITCH, 1>(rows), rows, units(depth), left + m0 * PITCH,
              packed + n * units(K) + first / GROUP * COLUMNS, c + (top + m0) * stride + n, stride, room - n,
              start ? start + n : nullptr, first > 0);
        }
    }
  }
}

// As `rows_times` for a single row, to which packing would be most of the work: B is the matrix `source` (N, K), which is
// transposed in registers. Numbers are summed in the same order.
static void row_times(const R* a, int64_t K, const R* source, int64_t N, R* c, const R* start) {
  for (int64_t n = 0; n < N; n += LANES) {
    Vector square[LANES], sum = start ? *(const Loose*)(start + n) : Vector{};
    for (int64_t k = 0; k < K; k += LANES) {
      load_columns(source + n * K, K, k, N - n, square);
#pragma GCC unroll 16
      for (int64_t i = 0; i < LANES; i++)
        if (k + i < K) sum = sum + (a[k + i] - Vector{}) * square[i];
    }
    std::memcpy(c + n, &sum, std::min(LANES, N - n) * sizeof(R));
  }
}

// Packs WIDTH units, of which `width` exist, from adjacent rows of a table. Numbers are multiplied with `scale` and added
// to `sums`, if given. Whole vectors are written, so units after them must be packed later.
template <int64_t WIDTH>
INLINE void pack_across(const R* const* rows, const R* const* scale, int64_t count, int64_t at, int64_t width, Unit* to,
                        R* sums) {
#pragma GCC unroll 2
  for (int64_t v = 0; v < WIDTH; v += LANES) {
    Vector low = some(rows[0] + at + v, std::min(WIDTH, width) - v), high = {};
    if (scale) low *= some(scale[0] + at + v, width - v);
    if (GROUP > 1 && count > 1) {
      high = some(rows[1] + at + v, std::min(WIDTH, width) - v);
      if (scale) high *= some(scale[1] + at + v, width - v);
    }
    if (sums) *(Loose*)(sums + v) += GROUP > 1 ? low + high : low;
    *(LooseUnits*)(to + v) = pairs(low, high);
  }
}

// One right side of a large product, and its destination: columns `from` to `to` of left correspond to the rows of c.
struct Part {
  int64_t from, to;
  const R* const* right;  // table
  const R* const* scale;  // table: multiplies right; or null
  int64_t columns;        // of right
  R* c;
  int64_t stride;
  R* sums;  // of left's columns, or null
};

// The large products after the loop, computed by all threads: c = sum over rows r of left[r]^T right[r] for each part.
// Some columns of left are packed once for all parts, in strips wide enough for long sequential reads.
static void gather(int64_t count, const R* const* left, const Part* parts, int64_t number, Unit* packed, int id,
                   int threads) {
  constexpr int64_t WIDE = 16, STRIP = ROWS * LONG + LANES;  // ROWS columns of left, and space for the last vector
  Memory<Unit> block(WIDE * STRIP);
  int64_t width = 0;
  for (int64_t p = 0; p < number; p++) width = std::max(width, parts[p].to);
  int64_t tiles = (width + ROWS - 1) / ROWS, t0 = tiles * id / threads, t1 = tiles * (id + 1) / threads;
  for (int64_t first = 0; first < count; first += DEPTH) {
    int64_t depth = std::min(DEPTH, count - first);
    for (int64_t p = 0, begin = 0; p < number; begin += padded(parts[p].columns), p++)
      for (int64_t n = id * COLUMNS; n < parts[p].columns; n += threads * COLUMNS)
        for (int64_t k = 0; k < depth; k += GROUP)
          pack_across<COLUMNS>(parts[p].right + first + k, parts[p].scale ? parts[p].scale + first + k : nullptr,
                               depth - k, n, parts[p].columns - n, packed + (begin + n) * LONG + k / GROUP * COLUMNS,
                               nullptr);
#pragma omp barrier
    for (int64_t group = t0; group < t1; group += WIDE) {
      int64_t m0 = group * ROWS, m1 = std::min(std::min(group + WIDE, t1) * ROWS, width);
      R added[WIDE * ROWS + 2 * LANES] = {};
      for (int64_t k = 0; k < depth; k += GROUP) {
        for (int64_t g = k + 16; g < std::min(k + 16 + GROUP, depth); g++)
          for (int64_t m = m0; m < m1; m += 64 / (int64_t)sizeof(R)) __builtin_prefetch(left[first + g] + m);
        for (int64_t m = m0; m < m1; m += ROWS)
          pack_across<ROWS>(left + first + k, nullptr, depth - k, m, m1 - m,
                            block.at + (m - m0) / ROWS * STRIP + k / GROUP * ROWS, added + m - m0);
      }
      for (int64_t p = 0, begin = 0; p < number; begin += padded(parts[p].columns), p++) {
        const Part& part = parts[p];
        int64_t from = std::max(m0, part.from), to = std::min(m1, part.to);
        if (part.sums)
          for (int64_t m = from; m < to; m++)
            part.sums[m - part.from] = (first ? part.sums[m - part.from] : R(0)) + added[m - m0];
        for (int64_t n = 0; n < part.columns; n += COLUMNS)
          for (int64_t m = from, rows; m < to; m += rows) {
            int64_t strip = (m - m0) / ROWS, inside = (m - m0) % ROWS;
            rows = std::min(ROWS - inside, to - m);
            put(tile_of<1, ROWS>(rows), rows, units(depth), block.at + strip * STRIP + inside,
                packed + (begin + n) * LONG, part.c + (m - part.from) * part.stride + n, part.stride, part.columns - n,
                nullptr, first > 0);
          }
      }
    }
#pragma omp barrier
  }
}
