// Products of matrices on vectors of the processor: one micro-kernel for the small product of a step and the large ones.
//
// The right side B (K, N) is packed in panels of COLUMNS columns, [panel][k][COLUMNS], zero behind N. The left side is
// packed in blocks of at most DEPTH columns, either row by row at a fixed pitch, whose addresses a compiler can put into
// its instructions, or [k][ROWS] where it comes transposed. Each element is summed in the order of k whatever the number
// of rows, so a row's result never depends on the rows beside it.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <new>
#include "lanes.h"

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
constexpr int64_t DEPTH = 256, PITCH = DEPTH + 16;  // off the powers of two, whose rows would share cache sets
constexpr int64_t BLOCK = 8 * ROWS;
typedef R Vector __attribute__((vector_size(VECTOR_BYTES)));
typedef Vector Loose __attribute__((aligned(sizeof(R)), may_alias));

struct Memory {  // freed at the end of its scope, not initialised
  R* at;
  explicit Memory(int64_t count) {
    size_t bytes = (size_t)(std::max<int64_t>(count, 1) * sizeof(R) + 63) / 64 * 64;
    at = (R*)std::aligned_alloc(64, bytes);
    if (!at) throw std::bad_alloc();
  }
  ~Memory() { std::free(at); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
};

INLINE int64_t padded(int64_t columns) { return (columns + COLUMNS - 1) / COLUMNS * COLUMNS; }

// Packs the panels of thread `id` of `threads` of B (K, N), element (k, n) at source[k * step_k + n * step_n].
static void pack_panels(int64_t K, int64_t N, const R* source, int64_t step_k, int64_t step_n, R* packed, int id,
                        int threads) {
  for (int64_t n = id * COLUMNS; n < N; n += threads * COLUMNS) {
    R* panel = packed + n * K;
    int64_t width = std::min(COLUMNS, N - n);
    for (int64_t first = 0; first < K; first += 16)  // lines of a transposed source are read whole
      for (int64_t j = 0; j < COLUMNS; j++)
        for (int64_t k = first; k < std::min(first + 16, K); k++)
          panel[k * COLUMNS + j] = j < width ? source[k * step_k + (n + j) * step_n] : R(0);
  }
}

// C (M, COLUMNS) = A (M, depth) B + (start row, or C itself, or 0).
template <int M, int64_t STEP_ROW, int64_t STEP_K>
static void tile(int64_t depth, const R* a, const R* b, R* c, int64_t stride, const R* start, bool add) {
  Vector sum[M][VECTORS];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++)
      sum[m][v] = add ? *(const Loose*)(c + m * stride + v * LANES)
                      : start ? *(const Loose*)(start + v * LANES) : Vector{};
  for (int64_t k = 0; k < depth; k++) {
    Vector right[VECTORS];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) right[v] = *(const Loose*)(b + k * COLUMNS + v * LANES);
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) {
      Vector left = a[m * STEP_ROW + k * STEP_K] - Vector{};
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; v++) sum[m][v] += left * right[v];
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) *(Loose*)(c + m * stride + v * LANES) = sum[m][v];
}

typedef void (*Tile)(int64_t, const R*, const R*, R*, int64_t, const R*, bool);
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
static void put(Tile run, int64_t rows, int64_t depth, const R* a, const R* b, R* c, int64_t stride, int64_t width,
                const R* start, bool add) {
  if (width >= COLUMNS) return run(depth, a, b, c, stride, start, add);
  R whole[ROWS * COLUMNS];
  if (add)
    for (int64_t m = 0; m < rows; m++) std::copy_n(c + m * stride, width, whole + m * COLUMNS);
  run(depth, a, b, whole, COLUMNS, start, add);
  for (int64_t m = 0; m < rows; m++) std::copy_n(whole + m * COLUMNS, width, c + m * stride);
}

// C (M, N) = start + A B by one thread; rows of A by a table, B packed whole, `start` as wide as the panels.
// C's rows have room for `room` >= N columns.
static void rows_times(int64_t M, const R* const* a, int64_t K, const R* packed, int64_t N, R* c, int64_t stride,
                       int64_t room, const R* start) {
  alignas(64) R left[BLOCK * PITCH];
  for (int64_t top = 0; top < M; top += BLOCK) {
    int64_t count = std::min(BLOCK, M - top), tiles = (count + ROWS - 1) / ROWS;
    for (int64_t first = 0; first < K || first == 0; first += DEPTH) {
      int64_t depth = std::min(DEPTH, K - first);
      for (int64_t m = 0; m < count; m++) std::memcpy(left + m * PITCH, a[top + m] + first, depth * sizeof(R));
      for (int64_t n = 0; n < N; n += COLUMNS)
        for (int64_t t = 0; t < tiles; t++) {
          int64_t m0 = count * t / tiles, rows = count * (t + 1) / tiles - m0;
          put(tile_of<PITCH, 1>(rows), rows, depth, left + m0 * PITCH, packed + n * K + first * COLUMNS,
              c + (top + m0) * stride + n, stride, room - n, start ? start + n : nullptr, first > 0);
        }
    }
  }
}

// The large product behind the loop, by all threads of a team: C (M, N) = sum over rows r of left[r]^T right[r], where
// right is scaled by `scale` if that is given; sums (M) = sum over rows of left. Everything by tables of rows.
static void gather(int64_t count, const R* const* left, int64_t offset, int64_t M, const R* const* right,
                   const R* const* scale, int64_t N, R* c, int64_t stride, R* sums, R* packed, int id, int threads) {
  alignas(64) R block[8 * DEPTH * ROWS + 2 * LANES] = {};  // the sums read a little past a row
  int64_t tiles = (M + ROWS - 1) / ROWS, t0 = tiles * id / threads, t1 = tiles * (id + 1) / threads;
  for (int64_t first = 0; first < count; first += DEPTH) {
    int64_t depth = std::min(DEPTH, count - first);
    for (int64_t n = id * COLUMNS; n < N; n += threads * COLUMNS)
      for (int64_t k = 0; k < depth; k++) {
        R* to = packed + n * DEPTH + k * COLUMNS;
        const R* from = right[first + k] + n;
        int64_t width = std::min(COLUMNS, N - n);
        if (width == COLUMNS) std::memcpy(to, from, COLUMNS * sizeof(R));
        else for (int64_t j = 0; j < COLUMNS; j++) to[j] = j < width ? from[j] : R(0);
        if (scale)
          for (int64_t j = 0; j < width; j++) to[j] *= scale[first + k][n + j];
      }
#pragma omp barrier
    for (int64_t group = t0; group < t1; group += 8) {
      int64_t m0 = group * ROWS, m1 = std::min(std::min(group + 8, t1) * ROWS, M);
      for (int64_t k = 0; k < depth; k++) {
        const R* from = left[first + k] + offset;
        for (int64_t m = m0; m < m1; m += ROWS) {
          R* to = block + (m - m0) * DEPTH + k * ROWS;
          if (m + ROWS <= m1) std::memcpy(to, from + m, ROWS * sizeof(R));
          else for (int64_t i = 0; i < ROWS; i++) to[i] = m + i < m1 ? from[m + i] : R(0);
        }
      }
      for (int64_t m = m0; m < m1; m += ROWS) {
        const R* a = block + (m - m0) * DEPTH;
        int64_t rows = std::min(ROWS, m1 - m);
        if (sums) {
          constexpr int64_t PARTS = (ROWS + LANES - 1) / LANES;
          Vector sum[PARTS] = {};
          for (int64_t k = 0; k < depth; k++)
            for (int64_t v = 0; v < PARTS; v++) sum[v] += *(const Loose*)(a + k * ROWS + v * LANES);
          for (int64_t i = 0; i < rows; i++) sums[m + i] = (first ? sums[m + i] : R(0)) + sum[i / LANES][i % LANES];
        }
        for (int64_t n = 0; n < N; n += COLUMNS)
          put(tile_of<1, ROWS>(rows), rows, depth, a, packed + n * DEPTH, c + m * stride + n, stride, N - n, nullptr,
              first > 0);
      }
    }
#pragma omp barrier
  }
}
