// A recurrent layer through time, forwards and backwards, for any cell whose step is a product and pointwise maths.
//
// A thread owns some rows of the batch for all steps, so that no step waits for another thread. Rows are sorted by
// length within a thread: those that a step still reaches are the first ones, and padding costs nothing.
#include <numeric>
#include <vector>
#include "products.h"
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num() { return 0; }
static int omp_get_num_threads() { return 1; }
#endif

typedef void (*Pointwise)(const Step*);

// Mirrored in kernel.py. Blocks are `hidden` wide; a null pointer stands for what is not there or not wanted.
struct Layer {
  int64_t batch, time, input, hidden, reverse, threads;
  int64_t projected;  // blocks that come from the input, step masks behind them
  int64_t recurrent, fed, states, saved, own, noise, apart;
  int64_t shown;                     // the field of the state that is the output too, or -1
  const int64_t* fed_fields;         // (fed): the fields of the state that enter the product
  const int64_t* fed_saved;          // (fed): the block of `saved` that holds the field, or -1 where the output does
  const int64_t* gradient_sources;   // (recurrent): the projected block with the same gradient, or -1 - apart block
  const int64_t* lengths;            // (batch) or null
  Pointwise pointwise;
  const R *inputs, *weight_ih, *bias_ih, *weight_hh, *bias_hh;
  const R* const* initial;           // per field of the state: (batch, hidden)
  const R* state_mask;               // (batch, fed * hidden)
  const R* const* noises;            // per mask: (batch, hidden)
  const R* own_values;               // (own, hidden)
  R *outputs, *saved_values;
  R* const* final;                   // per field: (batch, hidden)
  // the way back
  const R* output_gradient;
  const R* const* final_gradient;    // per field, or null
  R *projected_gradient, *apart_gradient;  // (batch, time, blocks * hidden)
  R *input_gradient, *weight_ih_gradient, *bias_ih_gradient, *weight_hh_gradient, *bias_hh_gradient;
  R* const* initial_gradient;        // per field
  R* own_gradient;                   // (own, hidden)
};

struct Rows {  // of one thread, the longest first
  std::vector<int64_t> batch, length;
  int64_t active(int64_t step) const {
    int64_t count = (int64_t)batch.size();
    while (count > 0 && length[count - 1] <= step) count--;
    return count;
  }
};

static int64_t length_of(const Layer& l, int64_t b) { return l.lengths ? l.lengths[b] : l.time; }

static Rows rows_of(const Layer& l, int id, int threads) {
  std::vector<int64_t> order(l.batch);
  std::iota(order.begin(), order.end(), 0);
  if (l.lengths)
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return l.lengths[a] > l.lengths[b]; });
  Rows rows;
  for (int64_t rank = 0; rank < l.batch; rank++) {
    int64_t turn = rank % (2 * threads);  // to and fro, so that all get as many steps
    int64_t owner = l.lengths ? (turn < threads ? turn : 2 * threads - 1 - turn) : rank * threads / l.batch;
    if (owner != id) continue;
    rows.batch.push_back(order[rank]);
    rows.length.push_back(length_of(l, order[rank]));
  }
  return rows;
}

// Where step `step` of a row lies in time.
static int64_t moment(const Layer& l, int64_t length, int64_t step) { return l.reverse ? length - 1 - step : step; }

// The output before step `step` of row b: a row of the outputs, or of the initial state.
static const R* before(const Layer& l, int64_t b, int64_t length, int64_t step) {
  if (step == 0) return l.initial[l.shown] + b * l.hidden;
  return l.outputs + (b * l.time + moment(l, length, step - 1)) * l.hidden;
}

struct Tables {  // what Step points to, for the rows of one thread
  std::vector<const R*> projected, masks, previous, output_gradient;
  std::vector<R*> output, saved, projected_gradient, apart_gradient;
  std::vector<R> noise;
  explicit Tables(const Layer& l, const Rows& rows)
      : projected(rows.batch.size()), masks(projected), previous(projected), output_gradient(projected),
        output(rows.batch.size()), saved(output), projected_gradient(output), apart_gradient(output),
        noise(rows.batch.size() * l.noise * l.hidden) {
    for (size_t m = 0; m < rows.batch.size(); m++) {
      R* row = noise.data() + m * l.noise * l.hidden;
      masks[m] = row;
      for (int64_t k = 0; k < l.noise; k++)
        std::copy_n(l.noises[k] + rows.batch[m] * l.hidden, l.hidden, row + k * l.hidden);
    }
  }
};

static Step step_of(const Layer& l, Tables& t, R* state, R* recurrent, int64_t stride) {
  Step s = {};
  s.hidden = l.hidden, s.state_stride = l.states * l.hidden, s.recurrent_stride = stride;
  s.recurrent = recurrent, s.state = state, s.own = l.own_values;
  s.projected = t.projected.data(), s.masks = t.masks.data(), s.previous = t.previous.data();
  s.output_gradient = t.output_gradient.data(), s.output = t.output.data(), s.saved = t.saved.data();
  s.projected_gradient = t.projected_gradient.data(), s.apart_gradient = t.apart_gradient.data();
  return s;
}

// What enters the recurrent product, side by side and masked.
static void feed(const Layer& l, const Rows& rows, int64_t count, const R* state, R* fed) {
  for (int64_t m = 0; m < count; m++)
    for (int64_t k = 0; k < l.fed; k++) {
      const R* from = state + (m * l.states + l.fed_fields[k]) * l.hidden;
      R* to = fed + (m * l.fed + k) * l.hidden;
      if (!l.state_mask) { std::copy_n(from, l.hidden, to); continue; }
      const R* mask = l.state_mask + (rows.batch[m] * l.fed + k) * l.hidden;
      for (int64_t j = 0; j < l.hidden; j++) to[j] = from[j] * mask[j];
    }
}

static void forward_rows(const Layer& l, const Rows& rows, const Unit* input_weights, const Unit* weights,
                         const R* bias_ih, const R* bias_hh) {
  const int64_t H = l.hidden, count = (int64_t)rows.batch.size(), P = l.projected * H, width = padded(l.recurrent * H);
  const int64_t chunk = std::max<int64_t>(1, BLOCK / std::max<int64_t>(count, 1)), room = padded(P);
  Memory<R> state(count * l.states * H), fed(count * l.fed * H), recurrent(count * width);
  Memory<R> projected(l.weight_ih ? chunk * count * room : 0);
  Tables t(l, rows);
  std::vector<const R*> fed_rows(count), input_rows;
  const bool direct = l.fed == 1 && !l.state_mask;
  for (int64_t m = 0; m < count; m++) {
    fed_rows[m] = direct ? state.at + (m * l.states + l.fed_fields[0]) * H : fed.at + m * l.fed * H;
    for (int64_t k = 0; k < l.states; k++)
      std::copy_n(l.initial[k] + rows.batch[m] * H, H, state.at + (m * l.states + k) * H);
  }
  Step s = step_of(l, t, state.at, recurrent.at, width);
  int64_t used = 0, row = 0;
  for (int64_t step = 0; (s.rows = rows.active(step)) > 0; step++) {
    if (l.weight_ih && step % chunk == 0) {  // the inputs of some steps in one product, which stays in the cache
      input_rows.clear();
      for (int64_t ahead = step; ahead < std::min(step + chunk, l.time); ahead++)
        for (int64_t m = 0, n = rows.active(ahead); m < n; m++)
          input_rows.push_back(l.inputs + (rows.batch[m] * l.time + moment(l, rows.length[m], ahead)) * l.input);
      used = (int64_t)input_rows.size(), row = 0;
      rows_times(used, input_rows.data(), l.input, input_weights, P, projected.at, room, room, bias_ih);
    }
    if (l.recurrent) {
      if (!direct) feed(l, rows, s.rows, state.at, fed.at);
      rows_times(s.rows, fed_rows.data(), l.fed * H, weights, l.recurrent * H, recurrent.at, width, width, bias_hh);
    }
    for (int64_t m = 0; m < s.rows; m++) {
      int64_t at = rows.batch[m] * l.time + moment(l, rows.length[m], step);
      t.projected[m] = l.weight_ih ? projected.at + row++ * room : l.inputs + at * P;
      t.output[m] = l.outputs + at * H;
      if (l.saved_values) t.saved[m] = l.saved_values + at * l.saved * H;
    }
    l.pointwise(&s);
  }
  for (int64_t m = 0; m < count; m++) {
    for (int64_t k = 0; k < l.states; k++)
      std::copy_n(state.at + (m * l.states + k) * H, H, l.final[k] + rows.batch[m] * H);
    R* row = l.outputs + rows.batch[m] * l.time * H;
    std::fill(row + rows.length[m] * H, row + l.time * H, R(0));
  }
}

// From the last step to the first: the gradients of what comes from the input and of the initial state.
static void backward_rows(const Layer& l, const Rows& rows, const Unit* weights, R* own_gradient) {
  const int64_t H = l.hidden, count = (int64_t)rows.batch.size(), R_ = l.recurrent * H, room = padded(l.fed * H);
  Memory<R> state(count * l.states * H), recurrent(count * R_), fed(count * room);
  std::vector<R> nothing(H);
  Tables t(l, rows);
  std::vector<const R*> recurrent_rows(count);
  for (int64_t m = 0; m < count; m++) {
    recurrent_rows[m] = recurrent.at + m * R_;
    for (int64_t k = 0; k < l.states; k++) {
      R* to = state.at + (m * l.states + k) * H;
      if (l.final_gradient[k]) std::copy_n(l.final_gradient[k] + rows.batch[m] * H, H, to);
      else std::fill_n(to, H, R(0));
    }
  }
  Step s = step_of(l, t, state.at, recurrent.at, R_);
  s.own_gradient = own_gradient;
  for (int64_t step = l.time - 1; step >= 0; step--) {
    if ((s.rows = rows.active(step)) == 0) continue;
    for (int64_t m = 0; m < s.rows; m++) {
      int64_t b = rows.batch[m], at = b * l.time + moment(l, rows.length[m], step);
      t.output_gradient[m] = l.output_gradient ? l.output_gradient + at * H : nothing.data();
      t.output[m] = l.outputs + at * H;
      t.saved[m] = l.saved_values + at * l.saved * H;
      t.projected_gradient[m] = l.projected_gradient + at * l.projected * H;
      t.apart_gradient[m] = l.apart_gradient + at * l.apart * H;
      if (l.shown >= 0) t.previous[m] = before(l, b, rows.length[m], step);
    }
    l.pointwise(&s);
    if (!l.recurrent) continue;
    rows_times(s.rows, recurrent_rows.data(), R_, weights, l.fed * H, fed.at, room, room, nullptr);
    for (int64_t m = 0; m < s.rows; m++)
      for (int64_t k = 0; k < l.fed; k++) {
        R* to = state.at + (m * l.states + l.fed_fields[k]) * H;
        const R* from = fed.at + m * room + k * H;
        const R* mask = l.state_mask ? l.state_mask + (rows.batch[m] * l.fed + k) * H : nullptr;
        if (mask) for (int64_t j = 0; j < H; j++) to[j] += from[j] * mask[j];
        else for (int64_t j = 0; j < H; j++) to[j] += from[j];
      }
  }
  for (int64_t m = 0; m < count; m++) {
    int64_t b = rows.batch[m];
    for (int64_t k = 0; k < l.states; k++)
      std::copy_n(state.at + (m * l.states + k) * H, H, l.initial_gradient[k] + b * H);
    R* row = l.projected_gradient + b * l.time * l.projected * H;
    std::fill(row + rows.length[m] * l.projected * H, row + l.time * l.projected * H, R(0));
  }
}

static void input_gradient_rows(const Layer& l, const Rows& rows, const Unit* weights) {
  const int64_t P = l.projected * l.hidden;
  std::vector<const R*> left(l.time);
  for (size_t m = 0; m < rows.batch.size(); m++) {
    int64_t first = rows.batch[m] * l.time;
    R* to = l.input_gradient + first * l.input;
    for (int64_t step = 0; step < rows.length[m]; step++) left[step] = l.projected_gradient + (first + step) * P;
    rows_times(rows.length[m], left.data(), P, weights, l.input, to, l.input, l.input, nullptr);
    std::fill(to + rows.length[m] * l.input, to + l.time * l.input, R(0));
  }
}

struct Valid {  // every valid step of every row, as the large products want it
  std::vector<const R*> inputs, projected, apart, mask;
  std::vector<std::vector<const R*>> fed;
};

static Valid valid_steps(const Layer& l) {
  Valid v;
  v.fed.resize(l.fed);
  for (int64_t b = 0; b < l.batch; b++)
    for (int64_t step = 0, length = length_of(l, b); step < length; step++) {
      int64_t at = b * l.time + moment(l, length, step);
      v.inputs.push_back(l.inputs + at * l.input);
      v.projected.push_back(l.projected_gradient + at * l.projected * l.hidden);
      v.apart.push_back(l.apart_gradient + at * l.apart * l.hidden);
      v.mask.push_back(l.state_mask ? l.state_mask + b * l.fed * l.hidden : nullptr);
      for (int64_t k = 0; k < l.fed; k++)
        v.fed[k].push_back(l.fed_saved[k] < 0 ? before(l, b, length, step)
                                              : l.saved_values + (at * l.saved + l.fed_saved[k]) * l.hidden);
    }
  return v;
}

// The gradients of the weights, each one product over all steps and rows. Blocks that share a gradient share its packing.
static void weight_gradients(const Layer& l, const Valid& v, Unit* packed, int id, int threads) {
  const int64_t H = l.hidden, count = (int64_t)v.inputs.size();
  std::vector<Part> shared, apart;
  std::vector<std::vector<const R*>> scales(l.fed);
  if (l.weight_ih_gradient)
    shared.push_back({0, l.projected * H, v.inputs.data(), nullptr, l.input, l.weight_ih_gradient, l.input,
                      l.bias_ih_gradient});
  for (int64_t k = 0; k < l.fed && l.weight_hh_gradient; k++) {
    if (l.state_mask)
      for (const R* row : v.mask) scales[k].push_back(row + k * H);
    for (int64_t first = 0, end; first < l.recurrent; first = end) {  // neighbours in one product
      int64_t source = l.gradient_sources[first], direction = source < 0 ? -1 : 1;
      for (end = first + 1; end < l.recurrent; end++)
        if (l.gradient_sources[end] != source + direction * (end - first)) break;
      int64_t from = (source < 0 ? -1 - source : source) * H;
      (source < 0 ? apart : shared)
          .push_back({from, from + (end - first) * H, v.fed[k].data(), l.state_mask ? scales[k].data() : nullptr, H,
                      l.weight_hh_gradient + first * H * l.fed * H + k * H, l.fed * H,
                      k == 0 ? l.bias_hh_gradient + first * H : nullptr});
    }
  }
  gather(count, v.projected.data(), shared.data(), (int64_t)shared.size(), packed, id, threads);
  gather(count, v.apart.data(), apart.data(), (int64_t)apart.size(), packed, id, threads);
}

static std::vector<R> padded_copy(const R* values, int64_t count) {
  std::vector<R> copy(padded(count));
  if (values) std::copy_n(values, count, copy.begin());
  return copy;
}

extern "C" int forward(const Layer* layer) try {
  const Layer& l = *layer;
  const int64_t P = l.projected * l.hidden, R_ = l.recurrent * l.hidden, F = l.fed * l.hidden;
  Memory<Unit> input_weights(l.weight_ih ? padded(P) * units(l.input) : 0), weights(padded(R_) * units(F));
  std::vector<R> bias_ih = padded_copy(l.bias_ih, P), bias_hh = padded_copy(l.bias_hh, R_);
  int failed = 0;
#pragma omp parallel num_threads((int)l.threads) reduction(+ : failed)
  {
    int id = omp_get_thread_num(), threads = omp_get_num_threads();
    if (l.weight_ih) pack_panels(l.input, P, l.weight_ih, 1, l.input, input_weights.at, id, threads);
    pack_panels(F, R_, l.weight_hh, 1, F, weights.at, id, threads);
#pragma omp barrier
    try {
      forward_rows(l, rows_of(l, id, threads), input_weights.at, weights.at, bias_ih.data(), bias_hh.data());
    } catch (const std::bad_alloc&) { failed = 1; }
  }
  return failed;
} catch (const std::bad_alloc&) { return 1; }

extern "C" int backward(const Layer* layer) try {
  const Layer& l = *layer;
  const int64_t H = l.hidden, P = l.projected * H, R_ = l.recurrent * H, F = l.fed * H, own = l.own * H;
  Memory<Unit> input_weights(l.input_gradient ? padded(l.input) * units(P) : 0), weights(padded(F) * units(R_));
  Memory<Unit> packed((padded(l.input) + l.recurrent * l.fed * padded(H)) * LONG);
  std::vector<R> own_parts(own * l.threads);
  Valid valid = valid_steps(l);
  if (valid.inputs.empty()) {
    if (l.weight_ih_gradient) {
      std::fill_n(l.weight_ih_gradient, P * l.input, R(0));
      std::fill_n(l.bias_ih_gradient, P, R(0));
    }
    if (l.weight_hh_gradient) {
      std::fill_n(l.weight_hh_gradient, R_ * F, R(0));
      std::fill_n(l.bias_hh_gradient, R_, R(0));
    }
  }
  int failed = 0;
#pragma omp parallel num_threads((int)l.threads) reduction(+ : failed)
  {
    int id = omp_get_thread_num(), threads = omp_get_num_threads();
    if (l.input_gradient) pack_panels(P, l.input, l.weight_ih, l.input, 1, input_weights.at, id, threads);
    pack_panels(R_, F, l.weight_hh, F, 1, weights.at, id, threads);
#pragma omp barrier
    try {
      Rows rows = rows_of(l, id, threads);
      backward_rows(l, rows, weights.at, own_parts.data() + id * own);
      if (l.input_gradient) input_gradient_rows(l, rows, input_weights.at);
    } catch (const std::bad_alloc&) { failed = 1; }
#pragma omp barrier
    weight_gradients(l, valid, packed.at, id, threads);
  }
  std::fill_n(l.own_gradient, own, R(0));
  for (int64_t part = 0; part < l.threads; part++)
    for (int64_t j = 0; j < own; j++) l.own_gradient[j] += own_parts[part * own + j];
  return failed;
} catch (const std::bad_alloc&) { return 1; }
