// chat_server.cpp - a chat room over TCP: a fiber for the room, two for each guest, and nobody who can hold up the others.
//
//     g++ -std=c++17 -O2 -pthread -I. examples/chat_server.cpp -o chat_server
//
//     ./chat_server 7000       serves on port 7000 until SIGINT or SIGTERM; talk to it with `nc 127.0.0.1 7000`
//     ./chat_server            plays the scene below, with clients on real sockets
//
// Every connection is a child of the server's nursery. It has a nursery of its own for the two that work for it: one reads
// from the socket, one writes to it; when either ends, so does the other. The room is a fiber that owns the list of guests,
// so there is no lock: it selects over what the connections tell it. It never waits for a guest. Lines for a guest go into
// a bounded queue, and who lets it fill up is disconnected. Closing `stop` ends it all: the room says goodbye, the
// connections end when that is written, and when the last one has, the nursery ends.
//
// Output:
//     ann: * you are guest 1; say /nick and a name
//     ann: * guest 1 is now ann
//     bob: * you are guest 2; say /nick and a name
//     ann: * guest 2 has come
//     ann: * guest 2 is now bob
//     bob: * guest 2 is now bob
//     ann: <bob> hello, ann
//     bob: <bob> hello, ann
//     cat: * you are guest 3; say /nick and a name
//     bob: * guest 3 has come
//     bob: * guest 3 has left: too slow
//     ann: * bob has left
//     ann: * the server closes, goodbye
//     ann: (the end)
//     the server has ended
#include "concur.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

using namespace std::chrono_literals;

// A handle: copies have the same queue.
struct guest {
  int number;
  std::string name;
  concur::channel<std::string> lines{256};  // to be written to it
  concur::cancel_source cut{};              // ends the connection
};

struct remark {
  int number;
  std::string text;
};

class room {
 public:
  concur::channel<guest> entering;  // closed when nobody will come any more
  concur::channel<remark> talking;
  concur::channel<int> leaving;

  void run(concur::receiver<void> stop) {
    while (!is_over_) {
      concur::select(concur::recv(entering, [&](auto who) { enter(who); }),
                     concur::recv(talking, [&](auto said) { hear(said); }),
                     concur::recv(leaving, [&](auto number) { remove(*number, " has left"); }),
                     concur::recv(stop, [&](bool) {
                       close();
                       stop = concur::nil;  // once; the rest goes on until the last connection has ended
                     }));
    }
  }

 private:
  void enter(std::optional<guest>& who) {
    is_over_ = !who;
    if (is_over_) return;
    if (!is_closed_) say("* " + who->name + " has come");
    tell(*who, is_closed_ ? goodbye_ : "* you are " + who->name + "; say /nick and a name");
    if (is_closed_) return who->lines.close();  // what is in it will still be written
    guests_.emplace(who->number, *who);
  }

  void hear(const std::optional<remark>& said) {
    const auto speaker = guests_.find(said->number);
    if (speaker == guests_.end()) return;  // it has been disconnected meanwhile
    std::string& name = speaker->second.name;
    if (said->text.compare(0, 6, "/nick ") != 0) return say("<" + name + "> " + said->text);
    const std::string before = std::exchange(name, said->text.substr(6));
    say("* " + before + " is now " + name);
  }

  void remove(int number, const char* why) {
    const auto found = guests_.find(number);
    if (found == guests_.end()) return;
    guest gone = found->second;
    guests_.erase(found);
    gone.cut.cancel();
    say("* " + gone.name + why);
  }

  void close() {
    is_closed_ = true;
    for (auto& [number, one] : guests_) {
      if (!tell(one, goodbye_)) one.cut.cancel();
      one.lines.close();
    }
    guests_.clear();
  }

  // False when the guest's queue is full.
  static bool tell(guest& who, const std::string& line) {
    std::string copy = line + "\n";
    return who.lines.try_send(copy);
  }

  void say(const std::string& line) {
    std::vector<int> slow;
    for (auto& [number, one] : guests_) {
      if (!tell(one, line)) slow.push_back(number);
    }
    for (int number : slow) remove(number, " has left: too slow");
  }

  const std::string goodbye_ = "* the server closes, goodbye";
  std::map<int, guest> guests_;
  bool is_closed_ = false;
  bool is_over_ = false;
};

void read_lines(concur::tcp_stream& stream, int number, concur::sender<remark> talking) {
  constexpr std::size_t line_max = 1000;
  for (;;) {
    std::string line = stream.read_until("\n", line_max);
    if (line.empty()) return;  // the client has closed
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
    if (!line.empty()) talking.send(remark{number, line});
  }
}

void attend(room& home, guest who, concur::tcp_stream stream) {
  home.entering.send(who);
  concur::cancel_scope until_cut(who.cut.token());
  try {
    until_cut.run([&] {
      concur::with_nursery([&](concur::nursery& both) {
        both.go([&] {
          for (const std::string& line : who.lines) stream.write_all(line);
          both.cancel();
        });
        read_lines(stream, who.number, home.talking);
        both.cancel();
      });
    });
  } catch (const std::exception& error) {  // one connection's trouble is not the server's
    std::fprintf(stderr, "chat_server: guest %d: %s\n", who.number, error.what());
  }
  home.leaving.send(who.number);
}

void serve(concur::tcp_listener& listener, concur::receiver<void> stop) {
  const int kept_bytes = 16 * 1024;  // by the kernel, for a client that does not read; the default is megabytes
  ::setsockopt(listener.fd(), SOL_SOCKET, SO_SNDBUF, &kept_bytes, sizeof kept_bytes);
  room home;
  bool is_open = true;
  int last_number = 0;
  const auto welcome = [&](concur::nursery& guests) {
    std::error_code error;
    concur::tcp_stream stream = listener.accept(error);
    if (error) return concur::this_fiber::sleep_for(10ms);  // when descriptors have run out, trying at once is no use
    stream.no_delay(true, error);
    const int number = ++last_number;
    guests.go(attend, std::ref(home), guest{number, "guest " + std::to_string(number)}, std::move(stream));
  };
  concur::with_nursery([&](concur::nursery& house) {
    house.go([&] { home.run(stop); });
    concur::with_nursery([&](concur::nursery& guests) {
      while (is_open) {
        concur::select(concur::readable(listener.fd(), [&] { welcome(guests); }),
                       concur::recv(stop, [&](bool) { is_open = false; }));
      }
      guests.scope().deadline(std::chrono::steady_clock::now() + 1s);  // for who does not take the goodbye
    });
    home.entering.close();
  });
}

// --- until a signal comes ---

int signal_pipe[2];

// A handler may do next to nothing, but it may write to a pipe, and a fiber can read one.
extern "C" void on_signal(int) {
  const int kept = errno;
  if (::write(signal_pipe[1], "s", 1) != 1) ::_exit(1);
  errno = kept;
}

// Parks until the program is to stop.
void wait_for_signal(const concur::endpoint& server) {
  if (::pipe(signal_pipe) != 0) throw std::system_error(errno, std::generic_category(), "pipe");
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);  // the second one ends the program at once
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  std::printf("listening on %s\n", server.to_string().c_str());
  std::fflush(stdout);
  char byte;
  concur::io::read(signal_pipe[0], &byte, 1);
}

// --- the scene ---

struct client {
  client(const char* who, const concur::endpoint& server) : name(who), stream(concur::tcp_stream::connect(server)) {}
  void say(const std::string& line) { stream.write_all(line + "\n"); }
  std::string read() { return stream.read_until("\n", 2000); }
  void hear() {
    const std::string line = read();
    std::printf("%s: %s", name, line.empty() ? "(the end)\n" : line.c_str());
  }
  const char* name;
  concur::tcp_stream stream;
};

// Who has said something waits until all have heard it, so that the order is always this one.
void play(const concur::endpoint& server, concur::sender<void> stop) {
  client ann("ann", server);
  ann.hear();
  ann.say("/nick ann");
  ann.hear();
  std::optional<client> bob(std::in_place, "bob", server);
  bob->hear();
  ann.hear();
  for (const char* line : {"/nick bob", "hello, ann"}) {
    bob->say(line);
    ann.hear();
    bob->hear();
  }

  client cat("cat", server);
  cat.hear();  // that, and then nothing
  bob->hear();
  ann.read();
  std::string line;
  do {
    bob->say(std::string(900, 'x'));
    ann.read();
    line = bob->read();
  } while (line[0] == '<');
  std::printf("bob: %s", line.c_str());
  ann.read();  // what bob said last
  bob->read();
  bob.reset();
  ann.hear();

  stop.close();
  ann.hear();
  ann.hear();
}

int main(int count, char** values) {
  try {
    concur::run([&] {
      const std::string port = count == 2 ? values[1] : "0";  // 0: any that is free
      concur::tcp_listener listener = concur::tcp_listener::bind("127.0.0.1:" + port);
      concur::channel<void> stop;
      concur::with_nursery([&](concur::nursery& house) {
        house.go([&] { serve(listener, stop); });
        if (count != 2) return play(listener.local_endpoint(), stop);
        wait_for_signal(listener.local_endpoint());
        stop.close();
      });
    });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "chat_server: %s\n", error.what());
    return 1;
  }
  std::puts("the server has ended");
}
